# shellcheck shell=bash
# What the machine must have before anything is tried. Each missing thing is one line that says what to do.

readonly DISK_NEEDED_GIB=6
readonly GO_NEEDED_MINOR=26

# What this script changes needs root from the first line: namespaces, cgroups, packages.
require_root() {
    ((EUID == 0)) || fail "needs root for network namespaces, cgroups and packages: run it with sudo"
}

require_machine() {
    [[ $(uname -s) == Linux && $(uname -m) == x86_64 ]] || fail "needs Linux on x86_64"
    command -v apt-get >/dev/null || fail "needs Debian 12 (apt-get was not found): run it on a Debian 12 machine"
    require_disk
    require_go
    if ! uses_existing_cluster; then require_kernel; fi
}

require_disk() {
    local folder available
    for folder in "$TESTBED_HOME" "$CACHE_DIR"; do
        mkdir -p "$folder"
        available=$(df --output=avail -k "$folder" | tail -n 1)
        ((available / 1024 / 1024 >= DISK_NEEDED_GIB)) ||
            fail "less than $DISK_NEEDED_GIB GB free for $folder: free some space, or set INVOKE_TESTBED_HOME and INVOKE_CACHE_DIR to a larger disk"
    done
}

require_kernel() {
    grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || fail "the kernel has no overlayfs, which containers need: load or enable CONFIG_OVERLAY_FS"
    local controller
    for controller in memory pids cpu cpuset; do
        [[ -n $(cgroup_mount "$controller") ]] ||
            fail "the cgroup v1 controller '$controller' is not mounted: boot with systemd.unified_cgroup_hierarchy=0 or mount it under /sys/fs/cgroup/$controller"
    done
}

# Asked after the packages, because only the nft program can tell.
require_nftables() {
    unshare --net nft add table inet probe 2>/dev/null ||
        fail "the kernel refuses nftables in a new network namespace: enable CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET"
}

require_go() {
    command -v go >/dev/null || fail "needs Go 1.$GO_NEEDED_MINOR or newer to build Kubernetes and an S3 server: install it and put it in PATH"
    local version minor
    version=$(GOTOOLCHAIN=local go env GOVERSION)
    minor=${version#go1.}
    minor=${minor%%[!0-9]*}
    ((${minor:-0} >= GO_NEEDED_MINOR)) || fail "needs Go 1.$GO_NEEDED_MINOR or newer, found $version: install a newer one"
}

require_rust() {
    command -v cargo >/dev/null || fail "needs Rust (cargo was not found): install the stable toolchain with rustup"
}
