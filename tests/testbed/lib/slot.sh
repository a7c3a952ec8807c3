# shellcheck shell=bash
# Addresses. 198.18.0.0/15 is reserved for tests of network devices (RFC 2544) and routed nowhere. Each instance takes
# one of its 32 blocks of 4096 addresses:
#
#   BLOCK.0.0/30   the link: .1 hub, .2 cluster      BLOCK.4.0/22   pods      BLOCK.8.0/22   Services
#
# A block is taken by making the symbolic link `.slots/N -> NAME`: the kernel makes it for one taker only, and it says
# whose it is in the same step.

readonly SLOT_COUNT=32

slot_number() {
    local link
    for link in "$TESTBED_HOME"/.slots/*; do
        if [[ $(readlink "$link") == "$NAME" ]]; then
            echo "${link##*/}"
            return
        fi
    done
    return 1
}

slot_ensure() {
    local number
    if slot_number >/dev/null; then return; fi
    mkdir -p "$TESTBED_HOME/.slots"
    for ((number = 0; number < SLOT_COUNT; number++)); do
        if ln --symbolic --no-target-directory "$NAME" "$TESTBED_HOME/.slots/$number" 2>/dev/null; then
            set_addresses
            return
        fi
    done
    fail "all $SLOT_COUNT address blocks are taken: stop an instance (see $TESTBED_HOME/.slots)"
}

slot_release() {
    local number
    if number=$(slot_number); then rm "$TESTBED_HOME/.slots/$number"; fi
}

# Sets the addresses of this instance; empty as long as it has no block.
set_addresses() {
    HUB_IP='' CLUSTER_IP='' BLOCK='' POD_RANGE='' SERVICE_RANGE='' API_SERVICE_IP='' POD_GATEWAY=''
    if uses_existing_cluster; then
        HUB_IP=${INVOKE_TEST_ADDRESS:?an address of this machine that the existing cluster can reach}
        return
    fi
    local number prefix third
    number=$(slot_number) || return 0
    prefix=198.$((18 + number / 16))
    third=$((number % 16 * 16))
    BLOCK=$prefix.$third.0/20
    HUB_IP=$prefix.$third.1
    CLUSTER_IP=$prefix.$third.2
    POD_RANGE=$prefix.$((third + 4)).0/22
    POD_GATEWAY=$prefix.$((third + 4)).1
    SERVICE_RANGE=$prefix.$((third + 8)).0/22
    API_SERVICE_IP=$prefix.$((third + 8)).1
}
