"""Cutting containers' networks, and ports from the host."""

# ruff: noqa: F403

from links import *
from machine_lab import Lab, boot

from nxc_testing.composition import Port


def test_a_machine_that_is_cut_before_it_starts_is_never_linked(lab: Lab) -> None:
    node = lab.machine()
    node.set_link(False)
    boot(node)
    # What `launch.sh` gave to ip(8), before systemd-nspawn ran.
    assert (node.directory / "ports").read_text().split()[-1] == "down"


def test_a_published_port_stays_the_same_over_a_reboot(lab: Lab) -> None:
    node = lab.machine(ports=(Port(8000),))
    boot(node)
    before = node.published_ports()
    node.reboot(30)
    assert node.published_ports() == before
    assert list(before) == [8000]
