#!/bin/sh
# Becomes a machine: runs in mount and network namespaces that are new, with the arguments of
# systemd-nspawn, in the machine's directory. All that it makes here goes with the machine.
set -eu

switch=$1
shift

while read -r group; do
    echo $$ >"$group/cgroup.procs"
done <groups

mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay root

ip -batch links
ip -n "$switch" -batch ports

# It has locks and the like in /run, which would stay when it is killed; on some hosts /run also
# leads to itself.
nspawn=$(readlink -f "$(command -v systemd-nspawn)")
mount -t tmpfs -o mode=755 run /run

exec "$nspawn" "$@"
