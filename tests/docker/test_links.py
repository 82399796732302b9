"""Cutting containers' networks, and ports from the host."""

# ruff: noqa: F403, F405

import pytest
from docker_lab import docker, left_of
from links import *
from machine_lab import Deployment, Lab, boot, succeed, until

from nxc_testing.backends.docker.engine import Engine
from nxc_testing.backends.docker.links import LinkSwitch, make_helper
from nxc_testing.errors import DeploymentError


def test_who_is_not_root_cuts_by_a_helper(pair: Deployment) -> None:
    one, _ = pair.nodes
    engine = Engine()
    bridges = [
        f"br-{network[:12]}"
        for network in docker(
            "network", "ls", "-q", "--no-trunc", "--filter", f"label={pair.label}"
        ).split()
    ]
    image = docker("inspect", "-f", "{{.Image}}", one.container)
    switch = LinkSwitch(
        engine,
        bridges,
        lambda: make_helper(engine, image, f"{pair.name}-links", pair.labels),
        direct=False,
    )
    mac = docker(
        "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}", one.container
    )
    ends = switch.ends(one.container, [mac])
    switch.switch(ends, up=False)
    assert not pings(pair)
    switch.switch(ends, up=True)
    until(lambda: pings(pair))
    engine.close()


def test_the_helper_goes_with_the_deployment(lab: Lab) -> None:
    deployment = lab.deploy(lab.role("one"))
    image = docker("inspect", "-f", "{{.Image}}", deployment.nodes[0].container)
    make_helper(deployment.engine, image, f"{deployment.name}-links", deployment.labels)
    deployment.close()
    assert left_of(deployment.name) == []


def test_a_changed_hardware_address_is_told(lab: Lab) -> None:
    node = lab.machine(capabilities=("NET_ADMIN",))
    boot(node)
    succeed(node, "ip link set eth0 address 02:00:00:00:00:01")
    with pytest.raises(DeploymentError, match="hardware addresses"):
        node.set_link(False)
