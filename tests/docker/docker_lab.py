"""What Docker's own client tells of machines."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Network

from nxc_testing.backends.docker.deployment import DockerDeployment

SUBNET = "{{(index .IPAM.Config 0).Subnet}}"


def docker(*arguments: str) -> str:
    """Docker's own client: what a person would see."""
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def inspect(name: str, template: str) -> str:
    return docker("inspect", "--format", template, name)


def left_of(deployment: str) -> list[str]:
    """Everything that the engine still has of a deployment."""
    label = f"label=nxc_testing.deployment={deployment}"
    return [
        line
        for kind in (["ps", "-a"], ["network", "ls"], ["volume", "ls"])
        for line in docker(*kind, "-q", "--filter", label).split()
    ]


def subnet_of(deployment: DockerDeployment) -> IPv4Network:
    name = docker("network", "ls", "-q", "--filter", f"label={deployment.label}")
    return IPv4Network(docker("network", "inspect", "--format", SUBNET, name))
