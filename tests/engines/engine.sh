#!/bin/bash
# PID 1 of one engine of the matrix:
# `unshare --mount --pid --uts --ipc --fork --kill-child --mount-proc engine.sh FOLDER SUITE MIRROR REPOSITORY PACKAGES [FLAG...]`.
# It fills FOLDER/root with a Debian release, its packages and a clone of REPOSITORY with its development environment,
# and starts that release's dockerd there with each FLAG: in a network and a mount namespace of its own, with a way out
# through this machine. It prints "made", "up PID", or "failed". When its stdin ends, so does all of it; nothing is left.
set -euo pipefail
(($$ == 1)) || { echo "engine.sh: to be started by tests.engines, as PID 1" >&2 && exit 64; }
export folder=$1 suite=$2 mirror=$3 repository=$4 packages=$5
shift 5
export root=$folder/root name=${folder##*/} link=cb-engine mark=claude-bottle-engine
export network=198.51.100.252/30 outside=198.51.100.253/30 inside=198.51.100.254/30
exec 2>>"$folder/engine.log"

make_root() {
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" >&2
    apt-config dump Acquire >"$root/etc/apt/apt.conf.d/machine"
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io" # it is thrown away
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    # What this machine trusts and where it finds Python packages, the root must as well.
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$root/usr/local/share/ca-certificates/" ';'
    for config in /etc/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf"; do
        [ ! -e "$config" ] || install -D "$config" "$root$config"
    done
    local words
    read -ra words <<<"$packages"
    export DEBIAN_FRONTEND=noninteractive
    {
        chroot "$root" update-ca-certificates
        chroot "$root" apt-get update
        chroot "$root" apt-get install --yes --no-install-recommends "${words[@]}"
        git clone --quiet "$repository" "$root/src"
        chroot "$root" make -C /src .venv-dev/stamp
    } >&2
    # systemd's resolver on loopback cannot be reached from another network namespace.
    local resolver=/run/systemd/resolve/resolv.conf
    [ -e $resolver ] || resolver=/etc/resolv.conf
    rm -f "$root/etc/resolv.conf"
    cp "$resolver" "$root/etc/resolv.conf"
    # As the init system of a Debian would: the owners of sessions are told apart by it.
    tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
    printf '127.0.0.1 localhost %s\n::1 localhost\n' "$name" >"$root/etc/hosts"
}

# Rules at the top: a docker engine sets the policy of FORWARD to DROP.
rules() {
    iptables --wait "$1" FORWARD --in-interface "$link" --jump ACCEPT --match comment --comment "$mark"
    iptables --wait "$1" FORWARD --out-interface "$link" --jump ACCEPT --match comment --comment "$mark"
    iptables --wait --table nat "$1" POSTROUTING --source "$network" --jump MASQUERADE --match comment --comment "$mark"
}

# Runs in the engine's network and mount namespaces, and becomes dockerd.
# shellcheck disable=SC2329 # by the name that another bash gets
enter() {
    set -euo pipefail
    local mtu
    mtu=$(nsenter --target 1 --net ip -o link show dev "$1" | sed -E 's/.* mtu ([0-9]+) .*/\1/')
    shift
    ip link set lo up
    ip link add wan mtu "$mtu" type veth peer name "$link" mtu "$mtu" netns 1
    ip address add "$inside" dev wan
    ip link set wan up
    nsenter --target 1 --net ip address add "$outside" dev "$link"
    nsenter --target 1 --net ip link set "$link" up
    ip route add default via "${outside%/*}"

    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
    mount --bind /dev "$root/dev"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
    mount -t tmpfs tmpfs "$root/dev/shm"
    mount -t tmpfs tmpfs "$root/run"
    cd "$root"
    pivot_root . .
    umount --lazy .
    cd /
    exec dockerd --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$name" --log-level warn "$@" >&2
}
export -f enter

start() {
    trap 'echo failed' EXIT
    make_root
    echo made
    rules --insert
    local way daemon
    way=$(ip route show default | sed -nE '1s/.* dev ([^ ]+).*/\1/p')
    unshare --net --mount bash -c 'enter "$@"' bash "$way" "$@" </dev/null >&2 &
    daemon=$!
    local end=$((SECONDS + 300))
    # Until it is dockerd it is in this machine's root, where another engine may answer.
    until [ "$(<"/proc/$daemon/comm")" = dockerd ] &&
        nsenter --target $daemon --mount --net --root docker version >/dev/null 2>&1; do
        kill -0 $daemon
        ((SECONDS < end))
        sleep 0.1
    done
    echo $daemon >"$folder/daemon"
    trap - EXIT
    echo "up $daemon"
}

# Of earlier engines too, whose first process was killed: there is one engine at a time.
sweep() {
    while rules --delete 2>/dev/null; do :; done
    find /sys/fs/cgroup -depth -type d -path '*/engine-*' -exec rmdir {} + 2>/dev/null || true
}

finish() {
    set +e # whatever fails, the rest is to be removed
    if [ -e "$folder/daemon" ]; then
        daemon=$(<"$folder/daemon")
        nsenter --target "$daemon" --mount --net --root bash -c \
            'docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes' >&2
        kill "$daemon"
        for _ in $(seq 100); do
            kill -0 "$daemon" 2>/dev/null || break
            sleep 0.1
        done
    fi
    kill -KILL -1
    wait
    sweep
    awk -v root="$root/" 'index($2, root) == 1 { print $2 }' /proc/mounts | tac | xargs --no-run-if-empty umount --lazy
    rm -rf --one-file-system "$folder"
}

# As one command, which bash has read whole: an edit of this file meanwhile changes nothing.
{
    hostname "$name"
    sweep
    start "$@" &
    read -r || true
    finish
    exit
}
