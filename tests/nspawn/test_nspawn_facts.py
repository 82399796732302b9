"""What a container is and what it finds, seen from inside and from the host."""

# ruff: noqa: F403

import os
import resource
from pathlib import Path

import pytest
from facts import *
from machine_lab import Deployment, Lab, Node, boot, run, succeed
from nspawn_lab import bounding_set, leader

from nxc_testing.composition import Disk, Volume

# Docker's own fourteen (capabilities(7) has the numbers), SYS_ADMIN and SYS_BOOT.
LEAST = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31} | {21, 22}


def test_no_more_capabilities_than_a_machine_in_docker(server: Node) -> None:
    bound = bounding_set(leader(server))
    assert {number for number in range(64) if bound >> number & 1} == LEAST


def test_a_shell_may_do_no_more_than_the_machines_init(server: Node) -> None:
    inside = succeed(server, "sed -n 's/CapBnd:\\s*//p;s/CapEff:\\s*//p' /proc/self/status")
    init = f"{bounding_set(leader(server)):016x}"
    assert inside.split() == [init, init]


def test_a_shell_has_the_limits_of_the_machines_init_and_not_the_drivers(
    lab: Lab,
) -> None:
    files, umask = resource.getrlimit(resource.RLIMIT_NOFILE), os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, files[1]))
    try:
        (node,) = lab.deploy(lab.role("one"), volumes=(Volume("users", "/users"),)).nodes
        boot(node)
        inside = succeed(node, "ulimit -Sn; umask; stat -c %a /users / /etc /etc/hosts")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        os.umask(umask)
    init = resource.prlimit(leader(node), resource.RLIMIT_NOFILE)
    assert init[0] != 256
    assert inside.split() == [str(init[0]), "0022", "755", "755", "755", "644"]


def test_a_shell_sees_nothing_of_the_host(server: Node) -> None:
    kinds = ("mnt", "uts", "ipc", "net", "pid", "cgroup")
    seen = succeed(server, f"cd /proc/self/ns && readlink {' '.join(kinds)}").split()
    assert seen == [os.readlink(f"/proc/{leader(server)}/ns/{kind}") for kind in kinds]
    assert not set(seen) & {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    assert run(server, f"ls {server.directory}")[0] != 0
    assert succeed(server, "readlink /proc/self/root /proc/self/cwd") == "/\n/"


def test_there_is_no_way_out(client: Node) -> None:
    status, seen = run(client, "timeout 20 bash -c ': </dev/tcp/203.0.113.1/80'")
    assert (status, "Network is unreachable" in seen) == (1, True)


def test_the_hosts_clock_cannot_be_set(server: Node) -> None:
    # To what it is: should it be allowed, nothing is lost.
    status, seen = run(server, 'date --set="$(date)"')
    assert (status != 0, "Operation not permitted" in seen) == (True, True)


def test_memory_and_cpus_are_limited(client: Node, deployment: Deployment) -> None:
    group = f"{deployment.name}-client"
    for file, limit in (
        ("memory/{}/memory.limit_in_bytes", 256 << 20),
        ("cpu/{}/cpu.cfs_quota_us", 100_000),
    ):
        path = Path("/sys/fs/cgroup", file.format(group))
        if not path.exists():
            pytest.skip(f"this host has no cgroup v1 {path.parent.parent.name} controller")
        assert int(path.read_text()) == limit


def test_a_device_that_is_not_its_own_cannot_be_opened(lab: Lab) -> None:
    owner, other = lab.deploy(lab.role("owner", disks=(Disk("vdb", 1 << 20),)), lab.role("x")).nodes
    boot(owner, other)
    major, minor = succeed(owner, "stat -c '%Hr %Lr' /dev/vdb && head -c1 /dev/vdb").split()[:2]
    status, seen = run(other, f"mknod /root/disk b {major} {minor} && head -c1 /root/disk")
    assert (status, "Operation not permitted" in seen) == (1, True)


def test_the_image_is_not_changed_by_its_machines(server: Node) -> None:
    succeed(server, "echo mine >/etc/motd-of-server")
    assert not (server.directory / "lower" / "etc" / "motd-of-server").exists()
