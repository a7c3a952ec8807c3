# shellcheck shell=bash
# An instance as a whole: its parts in the order of their start, and the commands that concern all of them.

# In the order of the start; the stop goes backwards.
instance_parts() {
    printf '%s\n' "${BROKER_PARTS[@]}" postgres s3
    if ! uses_existing_cluster; then printf '%s\n' "${KUBERNETES_PARTS[@]}"; fi
    if product_installed; then echo dispatcher; fi
}

start_if_stopped() {
    if process_runs "$1"; then return; fi
    local again=''
    if [[ -e $(part_pid_file "$1") ]]; then again=' again: it was not running'; fi
    "start_${1//-/_}"
    say "$1: started$again"
}

instance_prepare() {
    require_machine
    packages_ensure
    if ! uses_existing_cluster; then require_nftables; fi
    binaries_ensure
}

instance_up() {
    instance_prepare
    mkdir -p "$STATE"/{logs,pids,bin}
    # Others may pass through, on the way to the socket or certificate that is theirs; they may not look around.
    chmod 711 "$TESTBED_HOME" "$STATE"
    if ! uses_existing_cluster; then
        slot_ensure
        cgroups_ensure
        network_ensure
    fi
    certificates_ensure
    # The broker and the database take seconds to start; meanwhile the cluster does.
    broker_start
    start_if_stopped postgres
    start_if_stopped s3
    if ! uses_existing_cluster; then
        kubernetes_start
        kubernetes_await
        say "kubernetes: node ready"
    fi
    database_await
    objects_await
    broker_await
    if product_installed; then product_dispatcher_ensure; fi
    say "$NAME: up (API server $(address_of_api), AMQPS $HUB_IP:5671, PostgreSQL $(address_postgres), S3 $(address_s3) in the hub)"
}

address_of_api() {
    if uses_existing_cluster; then echo "of the existing cluster"; else address_apiserver; fi
}

instance_restart() {
    local part=${1:?which part? see testbed status}
    # Not `grep -q`, which leaves at the first match: the writer would die of SIGPIPE, and with it the pipeline.
    instance_parts | grep -x -- "$part" >/dev/null || fail "no such part: $part"
    binaries_locate
    "stop_${part//-/_}"
    start_if_stopped "$part"
    await "$part" 60 "healthy_${part//-/_}"
    say "$part: healthy"
}

# As if it had crashed: no chance to finish anything. It stays dead until `up` or `restart`.
instance_kill() {
    local part=${1:?which part? see testbed status} pid
    pid=$(process_pid "$part") || fail "$part does not run"
    kill -s KILL "$pid"
    while process_runs "$part"; do sleep 0.02; done
    say "$part: killed"
}

# PostgreSQL is several processes, which are stopped with it. What other parts have started, pods above all, goes on.
instance_signal() {
    local signal=$1 part=${2:?which part? see testbed status} pid
    pid=$(process_pid "$part") || fail "$part does not run"
    local processes=("$pid")
    if [[ $part == postgres ]]; then
        local child
        while read -r child; do processes+=("$child"); done < <(pgrep --parent "$pid")
    fi
    kill -s "$signal" "${processes[@]}" 2>/dev/null || true
    say "$part: SIG$signal"
}

instance_status() {
    local part pid state health unhealthy=0 function
    [[ -d $STATE ]] || fail "instance $NAME does not exist: testbed $NAME up"
    printf '%-19s %-8s %-8s %-10s %-44s %s\n' PART STATE PID HEALTH ADDRESS LOG
    for part in $(instance_parts); do
        function=${part//-/_} state=stopped pid=- health=-
        if pid=$(process_pid "$part"); then
            state=running health=healthy
            "healthy_$function" >/dev/null 2>&1 || health=UNHEALTHY
        fi
        [[ $health == healthy ]] || unhealthy=1
        printf '%-19s %-8s %-8s %-10s %-44s %s\n' "$part" "$state" "${pid:--}" "$health" "$("address_$function")" "$(part_log "$part")"
    done
    if ! uses_existing_cluster; then (wall_check) || unhealthy=1; fi
    if product_installed; then product_status || unhealthy=1; fi
    return "$unhealthy"
}

instance_down() {
    if [[ ! -d $STATE ]] && ! slot_number >/dev/null && [[ ! -e /run/netns/$HUB_NAMESPACE ]]; then
        say "$NAME: not there"
        return
    fi
    DISCARDING=yes
    instance_stop_parts
    if ! uses_existing_cluster; then
        containers_unmount
        containers_clean
        network_remove
        cgroups_remove
        slot_release
    fi
    rm -rf --one-file-system "$STATE"
    say "$NAME: down"
}

# Stops every program. Pods are not drained: a test bed that goes down takes its pods with it.
instance_stop_parts() {
    if ! uses_existing_cluster; then
        stop_together dispatcher kubelet kube-proxy coredns scheduler controller-manager
        cgroup_kill /kubepods
        stop_together apiserver
    else
        stop_together dispatcher
    fi
    stop_together rabbitmq postgres s3 containerd etcd
    stop_together epmd
    if ! uses_existing_cluster; then cgroup_kill ''; fi
}

stop_together() {
    local part stopping=()
    for part in "$@"; do
        "stop_${part//-/_}" &
        stopping+=($!)
    done
    for part in "${stopping[@]}"; do wait "$part"; done
}

# Runs in place of this script, so that signals and the exit code are the command's own.
instance_exec() {
    (($# > 0)) || fail "exec needs a command"
    require_up
    exec_in in_hub "$@"
}

instance_kubectl() {
    require_up
    exec_in in_cluster "$KUBECTL" --kubeconfig="$KUBECONFIG_ADMIN" "$@"
}

instance_helm() {
    require_up
    exec_in in_cluster "$HELM" --kubeconfig="$KUBECONFIG_ADMIN" "$@"
}

require_up() {
    if [[ ! -e $STATE/pki/.complete ]] || ! { uses_existing_cluster || [[ -e /run/netns/$HUB_NAMESPACE ]]; }; then
        fail "instance $NAME is not up: testbed $NAME up"
    fi
}

instance_env() {
    require_up
    export_line INVOKE_TESTBED "$NAME"
    export_line INVOKE_TESTBED_STATE "$STATE"
    export_line INVOKE_TEST_HUB_IP "$HUB_IP"
    export_line INVOKE_TEST_CLUSTER_IP "$CLUSTER_IP"
    if ! uses_existing_cluster; then
        export_line INVOKE_TEST_HUB_NETNS "$HUB_NAMESPACE"
        export_line INVOKE_TEST_CLUSTER_NETNS "$CLUSTER_NAMESPACE"
    fi
    export_line INVOKE_TEST_AMQP_URL "$(broker_amqp_url)"
    export_line INVOKE_TEST_AMQP_MANAGEMENT_URL "$(broker_management_url)"
    export_line INVOKE_TEST_AMQP_CA "$(broker_ca)"
    export_line INVOKE_TEST_POSTGRES_URL "$(database_url)"
    objects_env
    export_line INVOKE_TEST_KUBECONFIG_ADMIN "$KUBECONFIG_ADMIN"
    export_line INVOKE_TEST_KUBECTL "$KUBECTL"
    export_line INVOKE_TEST_HELM "$HELM"
    product_env
}

export_line() {
    printf 'export %s=%q\n' "$1" "$2"
}
