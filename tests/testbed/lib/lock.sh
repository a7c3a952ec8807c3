# shellcheck shell=bash
# One command at a time may change an instance. The lock is the kernel's, so a killed command leaves none behind.
# The file lies beside the state folder, not in it, because `down` removes that folder.

with_lock() {
    local file=$TESTBED_HOME/.locks/$NAME
    mkdir -p "${file%/*}"
    exec {LOCK_FD}>>"$file"
    flock --nonblock "$LOCK_FD" ||
        fail "another \`testbed $NAME\` command is running ($(<"$file")): wait for it or end it"
    printf 'pid %s, %s' "$$" "${1##*_}" >"$file"
    "$@"
}

# Every program that outlives this script must drop the lock's descriptor, or the lock would live as long as it does.
drop_lock() {
    if [[ -n ${LOCK_FD:-} ]]; then exec {LOCK_FD}>&-; fi
}
