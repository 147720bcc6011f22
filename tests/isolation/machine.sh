#!/bin/bash
# PID 1 of the battery's own machine: `unshare --net --mount --pid --fork --kill-child --mount-proc machine.sh FOLDER PYTHON`.
# It has no way to the real network. A second namespace plays all that is beyond it, the LAN and the internet; the
# default route leads there, so that every packet that leaves is seen. The machine ends when its stdin does. TEST_CGROUP
# is the control group of an engine that is itself removed afterwards.
set -euo pipefail
folder=$1 python=$2 here=$(dirname "$0")
exec 2>>"$folder/machine.log" # stdout is the pipe that says "up"

mount --make-rprivate /
resolver=$(readlink -m /etc/resolv.conf)
mount -t tmpfs tmpfs /run # the engine and containerd of this machine alone
mkdir -p "$(dirname "$resolver")"
[ -e "$resolver" ] || touch "$resolver"
echo "nameserver 127.0.0.1" >"$folder/resolv.conf" # on loopback, as with dnsmasq: CVE-2024-29018
mount --bind "$folder/resolv.conf" "$resolver"

ip link set lo up
ip netns add beyond
ip link add wan type veth peer name lan netns beyond
ip address add 198.51.100.130/26 dev wan
ip -6 address add fd66::130/64 dev wan nodad
ip link set wan up
beyond() { ip netns exec beyond "$@"; }
beyond ip link set lo up
beyond ip address add 198.51.100.131/26 dev lan
beyond ip -6 address add fd66::131/64 dev lan nodad
beyond ip link set lan up
while read -r address; do
    beyond ip address add "$address" dev lo
done <"$folder/beyond"
ip route add default via 198.51.100.131
ip -6 route add default via fd66::131
beyond ip route add default via 198.51.100.130
beyond ip -6 route add default via fd66::130
# The weakest host there is: it takes a packet from wherever it comes, and forwards IPv6.
echo 0 | tee /proc/sys/net/ipv4/conf/{all,default}/rp_filter >"$folder/rp_filter"
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding

receive() { "$python" "$here/inside/receiver.py" "$@" & }
receive --sniff >>"$folder/wire.log"
receive --dns 127.0.0.1 --zone "$folder/zone.json" >>"$folder/names.log"
receive --tcp 443,9000 --udp 443,9000 --icmp --abstract cb-battery >>"$folder/host.log"
beyond "$python" "$here/inside/receiver.py" --tcp 22,25,53,80,8443,8888,9000 --udp 53,123,443,9000 --icmp \
    --at "$(tr '\n' ' ' <"$folder/beyond443")" >>"$folder/outside.log" &
beyond "$python" "$here/api.py" "$folder" >>"$folder/api.log" &

dockerd --data-root "$folder/docker" --exec-root /run/docker --pidfile /run/docker.pid --host "unix://$folder/docker.sock" \
    --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "${TEST_CGROUP:-}/${folder##*/}" --log-level warn >&2 </dev/null &
daemon=$!
export DOCKER_HOST=unix://$folder/docker.sock
for _ in $(seq 300); do
    docker version >/dev/null 2>&1 && break
    kill -0 $daemon
    sleep 0.1
done
echo up
read -r || true
docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null || true
kill $daemon
wait $daemon || true
find /sys/fs/cgroup -depth -type d -path "*/${folder##*/}*" -exec rmdir {} + || true
rm -rf "$folder"
