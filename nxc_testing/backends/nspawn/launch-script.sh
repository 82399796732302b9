#!/bin/sh
# Becomes a start script of the NixOS contract, in the machine's directory and the deployment's
# network namespace: the namespaces, bridges and files in /run that it makes go with them.
# Arguments: the script, the directory that is shared with all machines, one for locks.
set -eu

script=$1 shared=$2 locks=$3

while read -r group; do
    echo $$ >"$group/cgroup.procs"
done <groups

mount -t overlay -o lowerdir=/run,upperdir=run,workdir=work overlay /run
mkdir -p /run/netns /run/nixos-nspawn
mount -t tmpfs -o mode=755 netns /run/netns
mount --bind "$locks" /run/nixos-nspawn

# A sysfs shows the network devices of the namespace in which it was mounted.
mount --rbind /sys/fs/cgroup root
mount -t sysfs sysfs /sys
mount --rbind root /sys/fs/cgroup
umount --lazy root

# Its console says little; the journal has the rest. journalctl gives up where there is none.
journal=$PWD/root/var/log/journal
{
    since=@$(date +%s)
    until set -- "$journal"/*/system.journal && [ -e "$1" ]; do sleep 0.1; done
    exec journalctl --follow --directory="$journal" --since="$since" --lines=all \
        --output=short-monotonic
} </dev/null 2>/dev/null &

exec env -i RUN_NSPAWN_ROOT_DIR="$PWD/root" RUN_NSPAWN_SHARED_DIR="$shared" \
    NOTIFY_SOCKET="$NOTIFY_SOCKET" "$script"
