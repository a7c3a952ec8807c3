# shellcheck shell=bash
# Each instance has the cgroup /invoke-NAME in every hierarchy.
#
# The kubelet removes every pod cgroup below its root that it does not know, so two kubelets that share a root destroy
# each other's pods: /invoke-NAME is the kubelet's cgroupRoot. Beside the kubelet's `kubepods`, the group `parts` in the
# pids hierarchy holds the programs that the test bed started. Whatever they start stays in there, also the
# container shims, which are daemons with no pid file of ours; membership is how `down` tells them from anyone else's.

cgroup_mounts() { findmnt --raw --noheadings --types cgroup --output TARGET; }
cgroup_mount() { findmnt --raw --noheadings --types cgroup --options "$1" --output TARGET | head -n 1; }

cgroups_ensure() {
    local mount group setting
    for mount in $(cgroup_mounts); do
        group=$mount/invoke-$NAME
        mkdir -p "$group"
        # A new cpuset is empty, and a process can only join one that has processors and memory.
        for setting in cpuset.cpus cpuset.mems; do
            if [[ -e $group/$setting && -z $(<"$group/$setting") ]]; then
                cat "$mount/$setting" >"$group/$setting"
            fi
        done
    done
    mkdir -p "$(parts_cgroup)"
}

parts_cgroup() { echo "$(cgroup_mount pids)/invoke-$NAME/parts"; }

join_instance_cgroup() {
    if uses_existing_cluster; then return; fi
    echo "$BASHPID" >"$(parts_cgroup)/cgroup.procs"
}

# cgroup_kill BELOW: ends every process in that group and the groups below it.
cgroup_kill() {
    local root processes deadline
    root=$(cgroup_mount pids)/invoke-$NAME$1
    [[ -d $root ]] || return 0
    deadline=$(($(now_in_milliseconds) + 10000))
    while processes=$(find "$root" -name cgroup.procs -exec cat {} + 2>/dev/null) && [[ -n $processes ]]; do
        (($(now_in_milliseconds) < deadline)) || fail "processes in $root do not die: ${processes//$'\n'/ }"
        # shellcheck disable=SC2086  # a list of numbers, one word each
        kill -s KILL $processes 2>/dev/null || true
        sleep 0.05
    done
}

cgroups_remove() {
    local mount group
    for mount in $(cgroup_mounts) $(findmnt --raw --noheadings --types cgroup2 --output TARGET); do
        group=$mount/invoke-$NAME
        [[ -d $group ]] || continue
        # The kernel frees a group a moment after its last process has gone.
        local attempt
        for attempt in {1..40}; do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
            [[ -d $group ]] || break
            sleep 0.05
        done
        [[ ! -d $group ]] || say "cgroups: could not remove $group (attempt $attempt)"
    done
}
