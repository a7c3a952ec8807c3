# shellcheck shell=bash
# etcd and the five Kubernetes programs, one function a program, in the order of their start.

readonly KUBERNETES_PARTS=(etcd containerd apiserver controller-manager scheduler kubelet kube-proxy coredns)

set_cluster_access() {
    KUBECONFIG_ADMIN=$STATE/pki/admin.kubeconfig
    if uses_existing_cluster; then KUBECONFIG_ADMIN=$INVOKE_TEST_KUBECONFIG; fi
}

kubectl_as_admin() { in_cluster "$KUBECTL" --kubeconfig="$KUBECONFIG_ADMIN" "$@"; }
helm_as_admin() { in_cluster "$HELM" --kubeconfig="$KUBECONFIG_ADMIN" "$@"; }

kubernetes_start() {
    start_if_stopped etcd
    start_if_stopped containerd
    await etcd 30 healthy_etcd
    start_if_stopped apiserver
    await containerd 30 healthy_containerd
    image_load "$PAUSE_TAR"
    await apiserver 60 healthy_apiserver
    local part
    for part in controller-manager scheduler kubelet kube-proxy; do start_if_stopped "$part"; done
    if ! process_runs coredns; then kubectl_as_admin apply --filename "$TESTBED_DIR/config/coredns-rights.yaml" >/dev/null; fi
    start_if_stopped coredns
}

kubernetes_await() {
    local part
    for part in controller-manager scheduler kubelet kube-proxy coredns; do await "$part" 60 "healthy_${part//-/_}"; done
    await kubelet 60 node_ready
    # Made by the controller manager a moment after the namespace; without it every pod is refused.
    await controller-manager 30 kubectl_as_admin get serviceaccount default
}

node_ready() {
    kubectl_as_admin get node "$NODE_NAME" --output 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -qx True
}

# probe URL [ARG…]: a health page, asked from inside the cluster's network.
probe() {
    local url=$1
    shift
    in_cluster curl --silent --fail --max-time 3 --output /dev/null "$@" "$url"
}

start_etcd() {
    mkdir -p "$STATE/etcd"
    chmod 700 "$STATE/etcd"
    # Loopback of the cluster's own namespace: only the API server is to speak with it, and pods cannot reach it.
    process_start etcd in_cluster etcd --name "$NODE_NAME" --data-dir "$STATE/etcd" \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster "$NODE_NAME=http://127.0.0.1:2380"
}
stop_etcd() { process_stop etcd TERM 10; }
address_etcd() { echo 127.0.0.1:2379; }
healthy_etcd() { probe http://127.0.0.1:2379/health; }

start_apiserver() {
    render audit-policy.yaml "NODE=$NODE_NAME" >"$STATE/audit-policy.yaml"
    process_start apiserver in_cluster "$KUBERNETES_BIN/kube-apiserver" \
        --bind-address="$CLUSTER_IP" --advertise-address="$CLUSTER_IP" --secure-port=6443 \
        --etcd-servers=http://127.0.0.1:2379 \
        --service-cluster-ip-range="$SERVICE_RANGE" \
        --tls-cert-file="$(pki)/apiserver.crt" --tls-private-key-file="$(pki)/apiserver.key" \
        --client-ca-file="$(pki)/cluster-ca.crt" \
        --kubelet-client-certificate="$(pki)/apiserver-kubelet-client.crt" \
        --kubelet-client-key="$(pki)/apiserver-kubelet-client.key" \
        --kubelet-certificate-authority="$(pki)/cluster-ca.crt" \
        --kubelet-preferred-address-types=InternalIP \
        --service-account-issuer=https://kubernetes.default.svc \
        --service-account-key-file="$(pki)/service-accounts.pub" \
        --service-account-signing-key-file="$(pki)/service-accounts.key" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --anonymous-auth=true \
        --audit-policy-file="$STATE/audit-policy.yaml" --audit-log-path="$STATE/logs/audit.log" \
        --audit-log-maxsize=50 --audit-log-maxbackup=2
}
stop_apiserver() { process_stop apiserver TERM 10; }
address_apiserver() { echo "$CLUSTER_IP:6443"; }
healthy_apiserver() { probe "https://$CLUSTER_IP:6443/readyz" --cacert "$(pki)/cluster-ca.crt"; }

start_controller_manager() {
    process_start controller-manager in_cluster "$KUBERNETES_BIN/kube-controller-manager" \
        --kubeconfig="$(pki)/controller-manager.kubeconfig" \
        --authentication-kubeconfig="$(pki)/controller-manager.kubeconfig" \
        --authorization-kubeconfig="$(pki)/controller-manager.kubeconfig" \
        --service-account-private-key-file="$(pki)/service-accounts.key" --root-ca-file="$(pki)/cluster-ca.crt" \
        --cluster-signing-cert-file="$(pki)/cluster-ca.crt" --cluster-signing-key-file="$(pki)/cluster-ca.key" \
        --use-service-account-credentials --leader-elect=false --bind-address=127.0.0.1
}
stop_controller_manager() { process_stop controller-manager TERM 10; }
address_controller_manager() { echo 127.0.0.1:10257; }
# It serves a self-signed certificate, on loopback.
healthy_controller_manager() { probe https://127.0.0.1:10257/healthz --insecure; }

start_scheduler() {
    process_start scheduler in_cluster "$KUBERNETES_BIN/kube-scheduler" \
        --kubeconfig="$(pki)/scheduler.kubeconfig" \
        --authentication-kubeconfig="$(pki)/scheduler.kubeconfig" \
        --authorization-kubeconfig="$(pki)/scheduler.kubeconfig" \
        --leader-elect=false --bind-address=127.0.0.1
}
stop_scheduler() { process_stop scheduler TERM 10; }
address_scheduler() { echo 127.0.0.1:10259; }
healthy_scheduler() { probe https://127.0.0.1:10259/healthz --insecure; }

start_kubelet() {
    mkdir -p "$STATE/kubelet"
    echo "nameserver $CLUSTER_IP" >"$STATE/kubelet/resolv.conf"
    render kubelet.yaml "CLUSTER_IP=$CLUSTER_IP" "STATE=$STATE" "CGROUP=invoke-$NAME" >"$STATE/kubelet/config.yaml"
    process_start kubelet in_cluster "$KUBERNETES_BIN/kubelet" \
        --config="$STATE/kubelet/config.yaml" --kubeconfig="$(pki)/kubelet.kubeconfig" \
        --hostname-override="$NODE_NAME" --node-ip="$CLUSTER_IP" \
        --root-dir="$STATE/kubelet" --cert-dir="$STATE/kubelet/pki"
}
stop_kubelet() { process_stop kubelet TERM 10; }
address_kubelet() { echo "$CLUSTER_IP:10250"; }
healthy_kubelet() { probe http://127.0.0.1:10248/healthz; }

start_kube_proxy() {
    # The conntrack limits belong to the machine, not to a namespace: zero means "leave them".
    process_start kube-proxy in_cluster "$KUBERNETES_BIN/kube-proxy" \
        --kubeconfig="$(pki)/kube-proxy.kubeconfig" --hostname-override="$NODE_NAME" \
        --proxy-mode=nftables --cluster-cidr="$POD_RANGE" \
        --healthz-bind-address=127.0.0.1:10256 --metrics-bind-address=127.0.0.1:10249 \
        --oom-score-adj=0 --conntrack-max-per-core=0 \
        --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s
}
stop_kube_proxy() { process_stop kube-proxy TERM 10; }
address_kube_proxy() { echo 127.0.0.1:10256; }
healthy_kube_proxy() { probe http://127.0.0.1:10256/healthz; }

start_coredns() {
    render Corefile "CLUSTER_IP=$CLUSTER_IP" "STATE=$STATE" >"$STATE/Corefile"
    process_start coredns in_cluster "$COREDNS_BIN/coredns" -conf "$STATE/Corefile"
}
stop_coredns() { process_stop coredns TERM 10; }
address_coredns() { echo "$CLUSTER_IP:53"; }
healthy_coredns() { probe http://127.0.0.1:8181/ready; }
