"""What a machine is and what it finds, seen from inside and from the host."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from docker_lab import Lab, boot, call, docker, inspect, run, serve, succeed

from nxc_testing.backends.docker.deployment import DockerDeployment
from nxc_testing.backends.docker.node import DockerNode
from nxc_testing.composition import Network, Port, Volume

SECRET = "s3cret \n with a line"  # noqa: S105


@pytest.fixture(scope="module")
def deployment(shared_lab: Lab) -> Iterator[DockerDeployment]:
    lab = shared_lab
    made = lab.deploy(
        lab.role("server", networks=("lan", "storage"), ports=(Port(8000),)),
        lab.role("client", memory=256 << 20, cpus=1),
        networks=(Network("storage"), Network("lan")),
        volumes=(Volume("users", "/users"), Volume("own", "/own", roles=("server",))),
        secrets={"munge": SECRET},
    )
    boot(*made.nodes)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(deployment: DockerDeployment) -> DockerNode:
    return deployment.nodes[0]


@pytest.fixture(scope="module")
def client(deployment: DockerDeployment) -> DockerNode:
    return deployment.nodes[1]


def test_nodes_are_in_the_order_of_the_plan(deployment: DockerDeployment) -> None:
    assert [node.name for node in deployment.nodes] == ["server", "client"]


def test_systemd_is_pid_1_and_is_content(server: DockerNode) -> None:
    assert succeed(server, "cat /proc/1/comm; systemctl is-system-running") == "systemd\nrunning"


def test_the_hostname_is_the_hosts(server: DockerNode) -> None:
    assert succeed(server, "hostname; cat /etc/nxc/hostname") == "server\nserver"


def test_a_machine_knows_its_role(client: DockerNode) -> None:
    assert succeed(client, "cat /etc/nxc/role") == "client"


def test_the_deployment_file_has_no_secret(client: DockerNode) -> None:
    assert run(client, "grep s3cret /etc/nxc/deployment.json")[0] == 1


def test_a_secret_is_roots_alone(client: DockerNode) -> None:
    seen = succeed(client, "stat -c '%a %U' /etc/nxc /etc/nxc/secrets /etc/nxc/secrets/munge")
    assert seen == "755 root\n700 root\n600 root"


def test_a_secret_is_byte_for_byte_what_was_pinned(client: DockerNode) -> None:
    assert succeed(client, "cat /etc/nxc/secrets/munge") == SECRET


@pytest.mark.parametrize("name", ["server", "server1", "client", "client1"])
def test_names_and_aliases_resolve_everywhere(deployment: DockerDeployment, name: str) -> None:
    host = next(node for node in deployment.nodes if node.name == name.rstrip("1"))
    for node in deployment.nodes:
        seen = succeed(node, f"getent ahostsv4 {name} | cut -d' ' -f1 | sort -u")
        assert seen == host.addresses["lan"]


def test_a_machine_calls_the_other_by_its_first_name(
    client: DockerNode, server: DockerNode
) -> None:
    seen = succeed(client, f"getent hosts {server.addresses['lan']}")
    assert seen.split()[1] == "server"


def test_an_unknown_name_is_refused_at_once(client: DockerNode) -> None:
    assert run(client, "timeout 2 getent hosts no-such-name.example.org")[0] == 2


def test_addresses_are_those_that_were_told(server: DockerNode) -> None:
    assert list(server.addresses) == ["lan", "storage"]
    seen = succeed(server, "hostname -I").split()
    assert set(seen) == set(server.addresses.values())


def test_network_devices_are_in_the_compositions_order(server: DockerNode) -> None:
    seen = succeed(server, "ip -4 -o addr show eth0; ip -4 -o addr show eth1")
    assert re.findall(r"inet ([0-9.]+)/", seen) == [
        server.addresses["storage"],
        server.addresses["lan"],
    ]


def test_machines_reach_each_other(client: DockerNode) -> None:
    succeed(client, "ping -c 1 -W 5 server")


def test_there_is_no_way_out(client: DockerNode) -> None:
    status, seen = run(client, "timeout 20 bash -c ': </dev/tcp/203.0.113.1/80'")
    assert (status, "No route to host" in seen) == (1, True)


def test_no_capability_for_the_clock(server: DockerNode) -> None:
    bound = int(succeed(server, "sed -n 's/CapBnd:\\s*//p' /proc/1/status"), 16)
    assert bound >> 25 & 1 == 0


def test_no_more_capabilities_than_dockers_own_and_the_two(server: DockerNode) -> None:
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


def server_image(node: DockerNode) -> str:
    return inspect(node.container_name, "{{.Image}}")


def test_a_container_is_labelled(deployment: DockerDeployment, shared_lab: Lab) -> None:
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
def test_networks_and_volumes_are_labelled(deployment: DockerDeployment, kind: str) -> None:
    assert len(docker(kind, "ls", "-q", "--filter", f"label={deployment.label}").split()) == 2


def test_a_volume_is_shared(server: DockerNode, client: DockerNode) -> None:
    succeed(server, "echo shared >/users/note")
    assert succeed(client, "cat /users/note") == "shared"


def test_a_volume_is_mounted_on_its_roles_only(server: DockerNode, client: DockerNode) -> None:
    assert run(server, "mountpoint /own")[0] == 0
    assert run(client, "mountpoint /own")[0] != 0


def test_memory_and_cpus_are_limited(client: DockerNode) -> None:
    limits = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}}"
    assert inspect(client.container_name, limits) == f"{256 << 20} {256 << 20} {10**9}"


def test_nothing_is_privileged(server: DockerNode) -> None:
    assert inspect(server.container_name, "{{.HostConfig.Privileged}}") == "false"


def test_a_published_port_is_on_the_hosts_loopback(server: DockerNode) -> None:
    serve(server, 8000, "hello")
    assert call(("127.0.0.1", server.published_ports()[8000])) == b"hello\n"
