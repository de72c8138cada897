#!/usr/bin/env bash
# Five nodes in a network of their own, with no address given, find each other by mDNS within ten seconds; then two of the README's example do.
# Usage: mdns_namespace.sh PATH_OF_MESHWORK [PATH_OF_THE_EXAMPLE_EMBED]. Exits with 77 and the word "skipped" where it may not make network namespaces.
set -euo pipefail

binary=${1:?the path of the meshwork command}
example=${2:-}
namespace=meshwork-test-$$
nodes=5
deadline_s=10

skip() {
    echo "skipped: $1"
    exit 77
}

[ "$(id -u)" = 0 ] || skip "only root makes network namespaces"
command -v ip >/dev/null || skip "the command ip is not installed"

folder=$(mktemp -d)
pids=()
cleanup() {
    trap - EXIT INT TERM HUP
    # Not through the function: the number of a job must be that of the node.
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    ip netns delete "$namespace" 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

ip netns add "$namespace" 2>"$folder/problem" || skip "no network namespace: $(cat "$folder/problem")"
inside() {
    ip netns exec "$namespace" "$@"
}
inside true 2>"$folder/problem" || skip "no command runs in a network namespace: $(cat "$folder/problem")"
# A cable with both ends here; what is sent to a group comes back to the sockets of this host.
inside ip link add mesh0 type veth peer name mesh1 2>"$folder/problem" || skip "no pair of interfaces: $(cat "$folder/problem")"
inside ip link set lo up
inside ip link set mesh1 up
inside ip address add 10.77.0.1/24 dev mesh0
inside ip link set mesh0 multicast on up
inside ip route add 224.0.0.0/4 dev mesh0

# One user, so one secret; no address, no token.
unset "${!MESHWORK_@}"
export HOME=$folder MESHWORK_STATE_DIR=$folder/state

for node in $(seq "$nodes"); do
    ip netns exec "$namespace" "$binary" node --cluster mdns-test --admin "$folder/$node.sock" </dev/null >"$folder/$node.out" 2>"$folder/$node.err" &
    pids+=($!)
done

members() {
    inside "$binary" ctl --admin "$folder/$1.sock" members --json 2>/dev/null | grep -o '"status":"alive"' | wc -l || true
}

from=$SECONDS
while :; do
    complete=0
    for node in $(seq "$nodes"); do
        [ "$(members "$node")" = "$nodes" ] && complete=$((complete + 1))
    done
    if [ "$complete" = "$nodes" ]; then
        echo "ok: $nodes nodes found each other in about $((SECONDS - from)) s"
        break
    fi
    if [ $((SECONDS - from)) -gt "$deadline_s" ]; then
        echo "failed: after $deadline_s s only $complete of $nodes nodes see $nodes members"
        for node in $(seq "$nodes"); do
            echo "--- node $node sees $(members "$node")"
            cat "$folder/$node.out" "$folder/$node.err"
        done | grep -v mesh1
        exit 1
    fi
    sleep 0.2
done

[ -n "$example" ] || exit 0
for node in first second; do
    ip netns exec "$namespace" "$example" </dev/null >"$folder/$node.out" 2>"$folder/$node.err" &
    pids+=($!)
    sleep 1
done
id_of() {
    sed -n 's/^I am \([a-z2-7]*\) at .*/\1/p' "$folder/$1.out"
}
heard() {
    local origin
    origin=$(id_of "$2")
    [ -n "$origin" ] && grep --quiet "^$origin: hello from a newcomer$" "$folder/$1.out"
}
from=$SECONDS
until heard first second && heard second first; do
    if [ $((SECONDS - from)) -gt "$deadline_s" ]; then
        echo "failed: after $deadline_s s the two examples have not heard each other"
        for node in first second; do
            echo "--- the $node one"
            cat "$folder/$node.out" "$folder/$node.err"
        done
        exit 1
    fi
    sleep 0.2
done
echo "ok: two runs of the example heard each other in about $((SECONDS - from)) s"
