"""What a container is and what it finds, seen from inside and from the engine."""

# ruff: noqa: F403

import os

import pytest
from docker_lab import docker, inspect
from facts import *
from machine_lab import Deployment, Lab, Node, run, succeed


def test_there_is_no_way_out(client: Node) -> None:
    status, seen = run(client, "timeout 20 bash -c ': </dev/tcp/203.0.113.1/80'")
    assert (status, "No route to host" in seen) == (1, True)


def test_no_more_capabilities_than_dockers_own_and_the_two(server: Node) -> None:
    plain = int(
        docker(
            "run",
            "--rm",
            "--network=none",
            server_image(server),
            "sed",
            "-n",
            "s/CapBnd:\\s*//p",
            "/proc/self/status",
        ),
        16,
    )
    bound = int(succeed(server, "sed -n 's/CapBnd:\\s*//p' /proc/1/status"), 16)
    assert bound & ~plain == 1 << 21 | 1 << 22


def server_image(node: Node) -> str:
    return inspect(node.container_name, "{{.Image}}")


def test_a_container_is_labelled(deployment: Deployment, shared_lab: Lab) -> None:
    run_id = shared_lab.sessions[0].id
    labels = inspect(f"{run_id}-server", "{{json .Config.Labels}}")
    for part in (
        f'"nxc_testing.run":"{run_id}"',
        '"nxc_testing.composition":"lab"',
        '"nxc_testing.host":"server"',
        f'"nxc_testing.owner":"{os.getpid()}:',
    ):
        assert part in labels


@pytest.mark.parametrize("kind", ["network", "volume"])
def test_networks_and_volumes_are_labelled(deployment: Deployment, kind: str) -> None:
    found = docker(kind, "ls", "-q", "--filter", f"label={deployment.label}").split()
    # One volume more is the directory that all share.
    assert len(found) == {"network": 2, "volume": 3}[kind]


def test_memory_and_cpus_are_limited(client: Node) -> None:
    limits = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}}"
    assert inspect(client.container_name, limits) == f"{256 << 20} {256 << 20} {10**9}"


def test_nothing_is_privileged(server: Node) -> None:
    assert inspect(server.container_name, "{{.HostConfig.Privileged}}") == "false"
