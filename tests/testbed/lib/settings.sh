# shellcheck shell=bash
# Names and places. Everything that belongs to an instance is derived from its name, so that instances cannot meet.

readonly TESTBED_HOME=${INVOKE_TESTBED_HOME:-/var/lib/invoke-testbed}
readonly CACHE_DIR=${INVOKE_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/invoke-testbed}
BIN_DIR=$(realpath --canonicalize-missing "${INVOKE_BIN_DIR:-$WORKSPACE/target/debug}")
IMAGE_DIR=$(realpath --canonicalize-missing "${INVOKE_IMAGE_DIR:-$WORKSPACE/target/images}")
readonly BIN_DIR IMAGE_DIR

readonly KUBERNETES_VERSION=v1.34.4
readonly NODE_NAME=node-1
readonly PAUSE_IMAGE=localhost/pause:dev
readonly JOB_IMAGE=localhost/invoke-job:dev
readonly RUNNER_IMAGE=localhost/invoke-runner:dev

choose_instance() {
    # The name becomes part of namespace, cgroup, Erlang node and file names: letters, digits and hyphens fit them all.
    [[ $1 =~ ^[a-z][a-z0-9-]{0,20}$ ]] || fail "instance name must match [a-z][a-z0-9-]{0,20}: $1"
    NAME=$1
    STATE=$TESTBED_HOME/$NAME
    readonly NAME STATE
    readonly HUB_NAMESPACE=invoke-$NAME-hub
    readonly CLUSTER_NAMESPACE=invoke-$NAME-cluster
    set_addresses
    set_cluster_access
    tools_locate
}

# With INVOKE_TEST_KUBECONFIG the cluster is somebody else's: no namespaces, no wall, no Kubernetes of our own.
uses_existing_cluster() {
    [[ -n ${INVOKE_TEST_KUBECONFIG:-} ]]
}

in_hub() {
    if uses_existing_cluster; then "$@"; else nsenter --net="/run/netns/$HUB_NAMESPACE" -- "$@"; fi
}

# nsenter and not `ip netns exec`: the latter mounts a fresh /sys, and the cgroups that containers need are gone.
in_cluster() {
    if uses_existing_cluster; then "$@"; else nsenter --net="/run/netns/$CLUSTER_NAMESPACE" -- "$@"; fi
}

# Fills the @KEY@ marks of a template: render TEMPLATE KEY=VALUE… > FILE
render() {
    local text assignment
    text=$(<"$TESTBED_DIR/config/$1")
    shift
    for assignment in "$@"; do
        # The quotes keep bash from reading an & in the value as "the matched text".
        text=${text//"@${assignment%%=*}@"/"${assignment#*=}"}
    done
    printf '%s\n' "$text"
}

random_password() {
    openssl rand -hex 24
}
