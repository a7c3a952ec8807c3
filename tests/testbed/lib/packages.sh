# shellcheck shell=bash
# Debian packages. Installing does nothing when all are there, and it never starts a service: the test bed runs its own
# copies of these programs, on its own addresses, with its own data.

readonly SERVER_PACKAGES=(rabbitmq-server postgresql openssl curl jq python3 python3-pip util-linux procps ca-certificates)
# For `make lint`, which the test run begins with.
readonly LINT_PACKAGES=(shellcheck)
readonly CLUSTER_PACKAGES=(etcd-server containerd runc containernetworking-plugins iptables nftables iproute2 conntrack gcc libc6-dev)

packages_ensure() {
    local wanted=("${SERVER_PACKAGES[@]}" "${LINT_PACKAGES[@]}") missing=() package
    if ! uses_existing_cluster; then wanted+=("${CLUSTER_PACKAGES[@]}"); fi
    for package in "${wanted[@]}"; do
        [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]} > 0)) || return 0

    local log=$CACHE_DIR/packages.log
    mkdir -p "$CACHE_DIR"
    say "packages: installing ${missing[*]}"
    if ! packages_install "${missing[@]}" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        fail "apt-get could not install the packages: see $log"
    fi
    say "packages: installed"
}

packages_install() (
    export DEBIAN_FRONTEND=noninteractive
    keep_services_stopped
    apt-get update
    apt-get install --yes --no-install-recommends "$@"
)

# Debian's maintainer scripts ask policy-rc.d before they start a service; 101 means "not allowed". A policy of the
# machine's own is respected; ours is there only during the installation.
keep_services_stopped() {
    local policy=/usr/sbin/policy-rc.d
    [[ ! -e $policy ]] || return 0
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}
