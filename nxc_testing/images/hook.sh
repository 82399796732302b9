#!/bin/sh
# The part of a build that is ours. mmdebstrap runs it outside the root file system that it makes,
# whose path is $1, at the stages `setup` and `customize`; the builder left its orders in $NXC_WORK.
# Lines that start with `nxc: ` tell the builder how it goes on.
set -eu

root=$(realpath "$1")
work=$NXC_WORK

inside() {
    set -- env -i \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" \
        ${http_proxy+"http_proxy=$http_proxy"} ${https_proxy+"https_proxy=$https_proxy"} \
        ${no_proxy+"no_proxy=$no_proxy"} "$@"
    chroot "$root" "$@" </dev/null
}

setup() {
    echo localhost >"$root/etc/hostname"
    if [ -e "$work/parent.tar" ]; then
        # Device nodes are mmdebstrap's business: not everyone may make them.
        tar --extract --file="$work/parent.tar" --directory="$root" --numeric-owner \
            --xattrs --xattrs-include='*' --exclude='./dev/*' --exclude=./etc/resolv.conf
    else
        # Manuals and translations. Directories stay: some packages link into them.
        # Given to mmdebstrap as an option, the same costs a filter process for each package.
        printf 'path-exclude=/usr/share/%s\n' 'man/*/*' 'info/*' 'locale/*/*' \
            >"$root/etc/dpkg/dpkg.cfg.d/nxc-testing"
    fi
    if [ -s "$work/sources.list" ]; then
        cp "$work/sources.list" "$root/etc/apt/sources.list"
    fi
    cp "$work/apt.conf" "$root/etc/apt/apt.conf.d/99nxc-build"
    # Whoever cuts the power during a build starts anew anyway.
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/99nxc-build"
}

install_packages() {
    [ -s "$work/packages" ] || return 0
    # The host's apt with the chroot's dpkg, as mmdebstrap does it itself: the image needs neither
    # keys nor certificates of the way to the mirror.
    xargs --arg-file="$work/packages" env APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" TMPDIR="$root/tmp" \
        apt-get --yes -o Dir::Bin::dpkg=env -o DPkg::Options::=--unset=TMPDIR \
        -o DPkg::Options::=dpkg -o DPkg::Options::=--force-confdef \
        -o DPkg::Options::=--force-confold -o DPkg::Chroot-Directory="$root" \
        -o DPkg::Use-Pty=false install -- </dev/null
}

place_files() {
    [ -e "$work/files.tar" ] || return 0
    echo "nxc: placing files"
    # Inside, so that the image's absolute links mean the image.
    chroot "$root" tar --extract --file=- --numeric-owner --same-owner --same-permissions \
        --keep-directory-symlink --no-overwrite-dir <"$work/files.tar"
}

run_scripts() {
    for script in "$work"/scripts/*/*; do
        [ -e "$script" ] || return 0
        name=${script##*/}
        echo "nxc: running $name"
        cp "$script" "$root/tmp/$name"
        status=0
        inside "/tmp/$name" || status=$?
        rm -f "$root/tmp/$name"
        if [ "$status" -ne 0 ]; then
            printf '%s\n%s\n' "$name" "$status" >"$work/failed"
            exit 1
        fi
    done
}

of_chroot() {
    for link in /proc/[0-9]*/root; do
        [ "$(readlink "$link" || true)" = "$root" ] || continue
        pid=${link#/proc/}
        echo "${pid%/root}"
    done
}

# What a script or a package left running would change files while they are packed.
stop_leftovers() {
    for signal in TERM KILL; do
        pids=$(of_chroot)
        [ -n "$pids" ] || return 0
        echo "nxc: stopping what was left running"
        # shellcheck disable=SC2086  # a list of numbers
        kill -s "$signal" $pids || true
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            [ -n "$(of_chroot)" ] || return 0
            sleep 0.25
        done
    done
}

finish() {
    if [ ! -e "$work/parent.tar" ]; then
        # What came before dpkg did: mmdebstrap unpacks the essential packages itself.
        find "$root/usr/share/man" "$root/usr/share/info" "$root/usr/share/locale" \
            -mindepth 2 ! -type d -delete
    fi
    rm -f "$root/etc/apt/apt.conf.d/99nxc-build" "$root/etc/dpkg/dpkg.cfg.d/99nxc-build"
    if cmp --silent "$work/sources.list" "$root/etc/apt/sources.list"; then
        cp "$work/sources.public" "$root/etc/apt/sources.list"
    fi
    if [ ! -L "$root/etc/resolv.conf" ] && cmp --silent /etc/resolv.conf "$root/etc/resolv.conf"; then
        # The host's was for the build only; the parent's comes back.
        : >"$root/etc/resolv.conf"
        if [ -e "$work/parent.tar" ]; then
            tar --extract --file="$work/parent.tar" --directory="$root" ./etc/resolv.conf || true
        fi
    fi
    # Nothing in /usr is newer than these: systemd has nothing to update at the first boot.
    touch --date="@$SOURCE_DATE_EPOCH" "$root/etc/.updated" "$root/var/.updated"
    # shellcheck disable=SC2016  # dpkg's variables
    inside dpkg-query --show --showformat='${Package} ${Version}\n' >"$work/packages.txt"
}

case $MMDEBSTRAP_HOOK in
setup) setup ;;
customize)
    install_packages
    place_files
    run_scripts
    stop_leftovers
    finish
    ;;
esac
