#!/bin/sh
# Runs as root in the image, after the packages and files are there.
set -eu
mkdir /srv/nfs
# What NFS before version 4 needs.
systemctl mask --quiet rpcbind.service rpcbind.socket rpc-statd.service rpc-statd-notify.service
