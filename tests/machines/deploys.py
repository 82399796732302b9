"""What a deployment gives its machines.

A module of tests imports these and has a fixture `lab`.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest
from machine_lab import Lab, boot, run, serve, succeed

from nxc_testing.composition import Network, Volume
from nxc_testing.errors import ConfigError, DeploymentError


def test_two_deployments_of_one_composition_do_not_clash(lab: Lab) -> None:
    session = lab.session()
    first = lab.deploy(lab.role("one"), session=session)
    second = lab.deploy(lab.role("one"), session=session)
    boot(*first.nodes, *second.nodes)
    serve(first.nodes[0], 7000, "first")
    serve(second.nodes[0], 7000, "second")
    assert succeed(first.nodes[0], "exec 3<>/dev/tcp/one/7000; cat <&3") == "first"
    assert succeed(second.nodes[0], "exec 3<>/dev/tcp/one/7000; cat <&3") == "second"


def test_machines_of_two_deployments_do_not_reach_each_other(lab: Lab) -> None:
    first, second = lab.deploy(lab.role("one")), lab.deploy(lab.role("one"))
    boot(*first.nodes, *second.nodes)
    serve(second.nodes[0], 7000, "second")
    address = second.nodes[0].addresses["lan"]
    # By name there is no way; nor with a route through the host.
    assert run(first.nodes[0], f"timeout 5 bash -c ': <>/dev/tcp/{address}/7000'")[0] != 0


def test_a_fixed_subnet_that_the_host_has_is_an_error_that_names_the_device(lab: Lab) -> None:
    loopback = IPv4Network("127.0.0.0/8")
    with pytest.raises(DeploymentError, match="network device lo has 127"):
        lab.deploy(lab.role("one"), networks=(Network("lan", loopback),))


@pytest.mark.parametrize("name", ["SYS_TIME", "CAP_SYS_TIME", "sys_time"])
def test_the_clock_is_never_given(lab: Lab, name: str) -> None:
    with pytest.raises(ConfigError, match=r"roles.one.capabilities: SYS_TIME is never given"):
        lab.deploy(lab.role("one", capabilities=(name,)))


def test_a_capability_that_was_asked_for_is_given(lab: Lab) -> None:
    node = lab.machine(capabilities=("NET_ADMIN",))
    boot(node)
    succeed(node, "ip link set eth0 mtu 1400")


def test_a_privileged_machine_has_all_but_the_clock(lab: Lab) -> None:
    node = lab.machine(privileged=True)
    boot(node)
    host = int(Path("/proc/self/status").read_text().partition("CapBnd:")[2].split()[0], 16)
    bound = int(succeed(node, "sed -n 's/CapBnd:\\s*//p' /proc/1/status"), 16)
    # Docker 20.10 knows the first 38, and systemd-nspawn 252 all.
    known = (1 << 38) - 1
    assert bound & known == host & known & ~(1 << 25)


def test_a_device_of_the_host_is_passed_in(lab: Lab) -> None:
    node = lab.machine(devices=("/dev/fuse",))
    boot(node)
    succeed(node, "test -c /dev/fuse && exec 3<>/dev/fuse")


def test_an_empty_volume_takes_over_what_the_image_has(lab: Lab) -> None:
    nodes = lab.deploy(lab.role("one", count=2), volumes=(Volume("skel", "/etc/skel"),)).nodes
    boot(*nodes)
    look = "test -e /etc/skel/.profile && echo yes"
    assert [succeed(node, look) for node in nodes] == ["yes"] * 2
