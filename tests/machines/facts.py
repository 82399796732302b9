"""What a machine is and what it finds.

A module of tests imports these and has a fixture `shared_lab`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from machine_lab import Deployment, Lab, Node, boot, call, run, serve, succeed

from nxc_testing.composition import Network, Port, Volume

SECRET = "s3cret \n with a line"  # noqa: S105


@pytest.fixture(scope="module")
def deployment(shared_lab: Lab) -> Iterator[Deployment]:
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
def server(deployment: Deployment) -> Node:
    return deployment.nodes[0]


@pytest.fixture(scope="module")
def client(deployment: Deployment) -> Node:
    return deployment.nodes[1]


def test_nodes_are_in_the_order_of_the_plan(deployment: Deployment) -> None:
    assert [node.name for node in deployment.nodes] == ["server", "client"]


def test_systemd_is_pid_1_and_is_content(server: Node) -> None:
    assert succeed(server, "cat /proc/1/comm; systemctl is-system-running") == "systemd\nrunning"


def test_the_hostname_is_the_hosts(server: Node) -> None:
    assert succeed(server, "hostname; cat /etc/nxc/hostname") == "server\nserver"


def test_a_machine_knows_its_role(client: Node) -> None:
    assert succeed(client, "cat /etc/nxc/role") == "client"


def test_the_deployment_file_has_no_secret(client: Node) -> None:
    assert run(client, "grep s3cret /etc/nxc/deployment.json")[0] == 1


def test_a_secret_is_roots_alone(client: Node) -> None:
    seen = succeed(client, "stat -c '%a %U' /etc/nxc /etc/nxc/secrets /etc/nxc/secrets/munge")
    assert seen == "755 root\n700 root\n600 root"


def test_a_secret_is_byte_for_byte_what_was_pinned(client: Node) -> None:
    assert succeed(client, "cat /etc/nxc/secrets/munge") == SECRET


@pytest.mark.parametrize("name", ["server", "server1", "client", "client1"])
def test_names_and_aliases_resolve_everywhere(deployment: Deployment, name: str) -> None:
    host = next(node for node in deployment.nodes if node.name == name.rstrip("1"))
    for node in deployment.nodes:
        seen = succeed(node, f"getent ahostsv4 {name} | cut -d' ' -f1 | sort -u")
        assert seen == host.addresses["lan"]


def test_a_machine_calls_the_other_by_its_first_name(client: Node, server: Node) -> None:
    seen = succeed(client, f"getent hosts {server.addresses['lan']}")
    assert seen.split()[1] == "server"


def test_an_unknown_name_is_refused_at_once(client: Node) -> None:
    assert run(client, "timeout 2 getent hosts no-such-name.example.org")[0] == 2


def test_addresses_are_those_that_were_told(server: Node) -> None:
    assert list(server.addresses) == ["lan", "storage"]
    seen = succeed(server, "hostname -I").split()
    assert set(seen) == set(server.addresses.values())


def test_network_devices_are_in_the_compositions_order(server: Node) -> None:
    seen = succeed(server, "ip -4 -o addr show eth0; ip -4 -o addr show eth1")
    assert re.findall(r"inet ([0-9.]+)/", seen) == [
        server.addresses["storage"],
        server.addresses["lan"],
    ]


def test_machines_reach_each_other(client: Node) -> None:
    succeed(client, "ping -c 1 -W 5 server")


def test_no_capability_for_the_clock(server: Node) -> None:
    bound = int(succeed(server, "sed -n 's/CapBnd:\\s*//p' /proc/1/status"), 16)
    assert bound >> 25 & 1 == 0


def test_a_volume_is_shared(server: Node, client: Node) -> None:
    succeed(server, "echo shared >/users/note")
    assert succeed(client, "cat /users/note") == "shared"


def test_a_volume_is_mounted_on_its_roles_only(server: Node, client: Node) -> None:
    assert run(server, "mountpoint /own")[0] == 0
    assert run(client, "mountpoint /own")[0] != 0


def test_a_published_port_is_on_the_hosts_loopback(server: Node) -> None:
    serve(server, 8000, "hello")
    assert call(("127.0.0.1", server.published_ports()[8000])) == b"hello\n"
