#!/bin/sh
# Runs as root in the image, after the packages and files are there.
set -eu
systemctl enable hello.service
