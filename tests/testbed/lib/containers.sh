# shellcheck shell=bash
# containerd with the cluster's pod network, and the images in it.

containerd_socket() { echo "$STATE/containerd/containerd.sock"; }
container_control() { ctr --address "$(containerd_socket)" --namespace k8s.io "$@"; }

start_containerd() {
    mkdir -p "$STATE/containerd/cni"
    render containerd.toml "STATE=$STATE" "PAUSE_IMAGE=$PAUSE_IMAGE" >"$STATE/containerd/config.toml"
    render pod-network.conflist "NETWORK=invoke-$NAME" "STATE=$STATE" "POD_RANGE=$POD_RANGE" >"$STATE/containerd/cni/10-pods.conflist"
    process_start containerd in_cluster containerd --config "$STATE/containerd/config.toml"
}
stop_containerd() { process_stop containerd TERM 10; }
address_containerd() { containerd_socket; }
healthy_containerd() { timeout 5 ctr --address "$(containerd_socket)" version; }

# image_load TAR: imports the image unless this very one is there. Says so only if it did something.
image_load() {
    local archive=$1 name digest
    [[ -s $archive ]] || fail "no image at $archive: build it with deploy/images/build"
    read -r name digest < <(tar --extract --to-stdout --occurrence=1 --file "$archive" index.json |
        jq -r '.manifests[0] | "\(.annotations["io.containerd.image.name"]) \(.digest)"')
    if [[ $(image_digest "$name") == "$digest" ]]; then return; fi
    container_control images import "$archive" >/dev/null
    say "images: $name ${digest:0:19} loaded"
}

image_digest() {
    container_control images list "name==$1" | awk 'NR > 1 { print $3 }'
}

# What the container runtime and the kubelet leave outside the instance's folder. Only what is provably ours goes.
containers_clean() {
    local file
    # The shims' sockets: each bundle says where its own is.
    find "$STATE/containerd/state" -path '*/io.containerd.runtime.v2.task/*' -name address 2>/dev/null |
        while read -r file; do
            file=$(<"$file")
            rm -f "${file#unix://}"
        done
    # What the network plugins remember of each pod. It names the pod's network namespace, which lies in our folder.
    if [[ -d /var/lib/cni/results ]]; then
        grep --recursive --files-with-matches --null --fixed-strings "$STATE/" /var/lib/cni/results | xargs --null --no-run-if-empty rm -f || true
    fi
    # Links to pod logs, in a folder that the kubelet does not let us choose.
    if [[ -d /var/log/containers ]]; then
        find /var/log/containers -type l -lname "$STATE/*" -delete
    fi
}

# Root file systems, shared memory, network namespaces and token volumes of pods. Deepest first.
containers_unmount() {
    local mount
    findmnt --raw --noheadings --output TARGET | awk -v below="$STATE/" 'index($0, below) == 1' | sort --reverse |
        while read -r mount; do umount --lazy "$mount" || true; done
}
