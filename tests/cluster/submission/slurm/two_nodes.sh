#!/bin/bash
# Runs a batch script on the first of two "nodes": network and process namespaces of one machine,
# joined by a bridge. Arguments: a folder for messages, the batch script. Needs root in its user
# namespace: start it by `unshare --net --mount --pid --fork --mount-proc` (--map-root-user).
set -euo pipefail
export FAKE_SLURM=$1
here=$(cd "$(dirname "$0")" && pwd)
export PATH=$here:$PATH

mount -t tmpfs tmpfs /run
ip link add bridge0 type bridge
ip link set bridge0 up
for number in 1 2; do
  ip netns add "node$number"
  ip link add "outer$number" type veth peer name inner netns "node$number"
  ip link set "outer$number" master bridge0 up
  ip -n "node$number" addr add "10.77.0.$number/24" dev inner
  ip -n "node$number" link set inner up
  ip -n "node$number" link set lo up
  ip -n "node$number" route add default dev inner
done

on_node() { # number, command
  # shellcheck disable=SC2016 # expanded by the inner bash
  nsenter --net="/run/netns/node$1" unshare --pid --fork --kill-child --mount-proc --uts \
    bash -c 'hostname "node$0" && exec "$@"' "$@"
}

# The second node waits for the tasks that srun gives it, as a slurmd would.
mkfifo "$FAKE_SLURM/task"
# shellcheck disable=SC2016 # expanded by the inner bash
on_node 2 bash -c 'while read -r task <"$0/task"; do
  code=0
  bash "$task" || code=$?
  echo "$code" >"$0/code"
done' "$FAKE_SLURM" &
second=$!
code=0
on_node 1 bash "$2" || code=$?
kill "$second" 2>/dev/null || true
exit "$code"
