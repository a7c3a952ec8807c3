# shellcheck shell=bash
# "No network path into the cluster", and the proof of it.

wall_raise() {
    render wall.nft "LINK=$LINK" | in_cluster nft --file -
}

wall_stands() {
    in_cluster nft list chain inet wall arriving 2>/dev/null | grep -q "iifname \"$LINK\" counter name \"refused\" drop"
}

wall_refused() {
    in_cluster nft --json list counter inet wall refused | jq '.nftables[] | select(.counter) | .counter.packets'
}

# A connection that fails proves nothing by itself: the server may be dead. So the same addresses must answer from
# inside, and the wall's own counter must have moved by at least one packet for each attempt from outside.
wall_check() {
    uses_existing_cluster && fail "check-wall needs a cluster of the test bed's own"
    local doors=("$CLUSTER_IP:6443" "$CLUSTER_IP:10250" "$CLUSTER_IP:53" "$API_SERVICE_IP:443" "$POD_GATEWAY:10250")
    local door attempts=() before after opened=0
    for door in "$CLUSTER_IP:6443" "$CLUSTER_IP:10250" "$API_SERVICE_IP:443"; do
        in_cluster timeout 2 bash -c "exec 3<>/dev/tcp/${door/://}" 2>/dev/null || fail "wall: $door does not answer inside the cluster either, so this would prove nothing"
    done
    before=$(wall_refused)
    for door in "${doors[@]}"; do
        in_hub timeout 0.5 bash -c "exec 3<>/dev/tcp/${door/://}" 2>/dev/null &
        attempts+=($!)
    done
    local index
    for index in "${!doors[@]}"; do
        if wait "${attempts[index]}"; then
            printf 'testbed: wall: the hub reached %s\n' "${doors[index]}" >&2
            opened=1
        fi
    done
    ((opened == 0)) || fail "the wall is open"
    after=$(wall_refused)
    ((after - before >= ${#doors[@]})) || fail "wall: ${#doors[@]} attempts failed, but the wall refused only $((after - before)) packets: something else is in the way"
    echo "wall: ${#doors[@]} doors tried from the hub, $((after - before)) packets refused, none opened"
}
