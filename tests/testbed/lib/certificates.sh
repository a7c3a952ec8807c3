# shellcheck shell=bash
# Two authorities that do not know each other, made once an instance: `cluster` for Kubernetes, `broker` for RabbitMQ and S3.
# The folder is readable by root alone; who else needs a certificate gets a copy of exactly that one.

pki() { echo "$STATE/pki"; }

certificates_ensure() {
    local complete
    complete=$(pki)/.complete
    [[ ! -e $complete ]] || return 0
    # Half a set is worse than none: nothing runs on it yet, so begin again.
    rm -rf "$(pki)"
    mkdir -p "$(pki)"
    chmod 700 "$(pki)"
    authority broker
    certificate broker rabbitmq /CN=rabbitmq "IP:$HUB_IP,IP:127.0.0.1,DNS:localhost"
    if ! uses_existing_cluster; then cluster_certificates; fi
    touch "$complete"
    say "certificates: made"
}

cluster_certificates() {
    authority cluster
    certificate cluster apiserver /CN=kube-apiserver \
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$CLUSTER_IP,IP:$API_SERVICE_IP"
    certificate cluster kubelet "/O=system:nodes/CN=system:node:$NODE_NAME" "DNS:$NODE_NAME,IP:$CLUSTER_IP"
    certificate cluster admin /O=system:masters/CN=admin
    certificate cluster apiserver-kubelet-client /O=system:masters/CN=apiserver-kubelet-client
    certificate cluster controller-manager /CN=system:kube-controller-manager
    certificate cluster scheduler /CN=system:kube-scheduler
    certificate cluster kube-proxy /CN=system:kube-proxy
    certificate cluster coredns /CN=system:coredns
    private_key "$(pki)/service-accounts.key"
    openssl pkey -in "$(pki)/service-accounts.key" -pubout -out "$(pki)/service-accounts.pub"
    local user
    for user in admin kubelet controller-manager scheduler kube-proxy coredns; do kubeconfig "$user"; done
}

private_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

# authority NAME
authority() {
    private_key "$(pki)/$1-ca.key"
    openssl req -x509 -new -key "$(pki)/$1-ca.key" -out "$(pki)/$1-ca.crt" -days 3650 -subj "/CN=invoke test bed $NAME: $1" \
        -addext keyUsage=critical,keyCertSign,cRLSign
}

# certificate AUTHORITY NAME SUBJECT [ADDRESSES]: with addresses it is good for a server too, without them for a client only.
certificate() {
    local authority=$1 base subject=$3 addresses=${4:-} extensions
    base=$(pki)/$2
    extensions=$'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth'
    if [[ -n $addresses ]]; then extensions+=$',serverAuth\nsubjectAltName='$addresses; fi
    private_key "$base.key"
    openssl req -new -key "$base.key" -subj "$subject" |
        openssl x509 -req -CA "$(pki)/$authority-ca.crt" -CAkey "$(pki)/$authority-ca.key" -days 3650 \
            -extfile <(echo "$extensions") -out "$base.crt" 2>/dev/null
}

kubeconfig() {
    render kubeconfig.yaml "SERVER=https://$CLUSTER_IP:6443" "USER=$1" \
        "CA=$(base64 --wrap=0 "$(pki)/cluster-ca.crt")" \
        "CERTIFICATE=$(base64 --wrap=0 "$(pki)/$1.crt")" "KEY=$(base64 --wrap=0 "$(pki)/$1.key")" >"$(pki)/$1.kubeconfig"
}
