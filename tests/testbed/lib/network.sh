# shellcheck shell=bash
# Two network namespaces and one link between them, made inside them: the machine's own namespace gets no link, no
# address and no route.

readonly LINK=uplink # the name of the veth on either side

network_ensure() {
    # Namespaces vanish with a reboot, or when somebody removes them. Programs that still run then hold the nameless
    # remains of the old ones, so they have to be started anew.
    if ! network_exists; then
        instance_stop_parts
        network_remove
        network_create
        say "network: $HUB_NAMESPACE $HUB_IP, $CLUSTER_NAMESPACE $CLUSTER_IP behind the wall"
    fi
    if ! wall_stands; then
        wall_raise
        say "wall: raised again, it was not complete"
    fi
}

network_exists() {
    [[ -e /run/netns/$HUB_NAMESPACE && -e /run/netns/$CLUSTER_NAMESPACE ]] &&
        ip -netns "$HUB_NAMESPACE" -brief link show dev "$LINK" 2>/dev/null | grep -qw UP
}

network_create() {
    ip netns add "$HUB_NAMESPACE"
    ip netns add "$CLUSTER_NAMESPACE"
    # The wall stands before the link does: there is no moment at which a packet could pass.
    wall_raise
    ip link add "$LINK" netns "$HUB_NAMESPACE" type veth peer name "$LINK" netns "$CLUSTER_NAMESPACE"
    # IPv6 would bring link-local addresses, a second way to the same programs. There shall be one way.
    in_hub sysctl -qw "net.ipv6.conf.$LINK.disable_ipv6=1" net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
    in_cluster sysctl -qw "net.ipv6.conf.$LINK.disable_ipv6=1" net.ipv4.ip_forward=1
    ip -netns "$HUB_NAMESPACE" address add "$HUB_IP/30" dev "$LINK"
    ip -netns "$CLUSTER_NAMESPACE" address add "$CLUSTER_IP/30" dev "$LINK"
    local namespace
    for namespace in "$HUB_NAMESPACE" "$CLUSTER_NAMESPACE"; do
        ip -netns "$namespace" link set lo up
        ip -netns "$namespace" link set "$LINK" up
    done
    # The hub knows the way to pods and Services, so that it is the wall and not a missing route that keeps it out. It
    # has no other route. What the cluster sends elsewhere ends in the hub, which has nowhere to send it and does not forward.
    ip -netns "$HUB_NAMESPACE" route add "$BLOCK" via "$CLUSTER_IP"
    ip -netns "$CLUSTER_NAMESPACE" route add default via "$HUB_IP"
}

network_remove() {
    local namespace
    for namespace in "$HUB_NAMESPACE" "$CLUSTER_NAMESPACE"; do
        if [[ -e /run/netns/$namespace ]]; then ip netns delete "$namespace"; fi
    done
}
