# shellcheck shell=bash
# Programs that outlive this script. Each part has a pid file and a log. A process is signalled only after its pid file
# has been checked against the kernel: pids are reused, and the process that now has the number may be anyone's.

part_log() { echo "$STATE/logs/$1.log"; }
part_pid_file() { echo "$STATE/pids/$1"; }

# process_start PART PLACE COMMAND…      PLACE is in_hub or in_cluster
process_start() {
    local part=$1 place=$2 log
    shift 2
    log=$(part_log "$part")
    mkdir -p "$STATE/logs" "$STATE/pids"
    printf '=== %s started %s\n' "$part" "$(date --utc --iso-8601=seconds)" >>"$log"
    (
        # In the instance's own cgroup, so that `down` finds even what this process starts and then disowns.
        join_instance_cgroup
        drop_lock
        ulimit -n "$(ulimit -Hn)"
        cd /
        # setsid: Ctrl-C in the terminal that ran `up` must not reach it. Each of these words replaces the process
        # before it and none forks, so the pid stays the one that is remembered below.
        exec_in "$place" setsid -- "$@"
    ) >>"$log" 2>&1 </dev/null &
    process_remember "$part" $!
}

exec_in() {
    local place=$1
    shift
    if uses_existing_cluster; then exec "$@"; fi
    case $place in
    in_hub) exec nsenter --net="/run/netns/$HUB_NAMESPACE" -- "$@" ;;
    in_cluster) exec nsenter --net="/run/netns/$CLUSTER_NAMESPACE" -- "$@" ;;
    esac
}

# pid, start time and boot name one process for ever. The file appears by rename: a half-written one would lose it.
process_remember() {
    local file
    file=$(part_pid_file "$1")
    echo "$2 $(process_start_time "$2") $(</proc/sys/kernel/random/boot_id)" >"$file.unfinished"
    mv "$file.unfinished" "$file"
}

# Clock ticks from boot to the start of the process: field 22, counted behind the program's name, which may hold
# anything, blanks and brackets included. A dead process that waits for its parent (state Z) counts as gone.
process_start_time() {
    local line fields
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || {
        echo gone
        return
    }
    read -ra fields <<<"${line##*) }"
    if [[ ${fields[0]} == Z ]]; then echo gone; else echo "${fields[19]}"; fi
}

# Prints the pid if the part runs; fails if it does not.
process_pid() {
    local pid started boot
    { read -r pid started boot <"$(part_pid_file "$1")"; } 2>/dev/null || return 1
    [[ $boot == "$(</proc/sys/kernel/random/boot_id)" && $started != gone && $started == "$(process_start_time "$pid")" ]] || return 1
    echo "$pid"
}

process_runs() {
    process_pid "$1" >/dev/null
}

# process_stop PART SIGNAL SECONDS: asks, waits, and insists when the time is over.
process_stop() {
    local part=$1 signal=$2 seconds=$3 pid deadline
    # What the program would still write is about to be deleted: it need not be waited for.
    if [[ -n ${DISCARDING:-} ]]; then seconds=2; fi
    if pid=$(process_pid "$part"); then
        kill -s "$signal" "$pid" 2>/dev/null || true
        deadline=$(($(now_in_milliseconds) + seconds * 1000))
        while process_runs "$part"; do
            if (($(now_in_milliseconds) > deadline)); then
                [[ -n ${DISCARDING:-} ]] || say "$part: still running $seconds s after SIG$signal, killing it"
                # The whole group, while its leader is known to be ours.
                kill -s KILL -- "-$pid" 2>/dev/null || kill -s KILL "$pid" 2>/dev/null || true
                deadline=$((deadline + 10000))
            fi
            sleep 0.05
        done
    fi
    rm -f "$(part_pid_file "$part")"
}

# await PART SECONDS CONDITION…: polls until the condition holds; fails as soon as the part has died.
await() {
    local part=$1 seconds=$2 deadline
    shift 2
    deadline=$(($(now_in_milliseconds) + seconds * 1000))
    until "$@" >/dev/null 2>&1; do
        process_runs "$part" || fail_part "$part" "ended before it was ready"
        (($(now_in_milliseconds) < deadline)) || fail_part "$part" "not ready after $seconds s"
        sleep 0.1
    done
}
