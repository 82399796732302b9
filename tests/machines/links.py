"""Cutting a machine's networks, and ports from the host.

A module of tests imports these and has the fixtures `lab` and `shared_lab`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from machine_lab import Deployment, Lab, boot, call, run, serve, succeed, until

from nxc_testing.composition import Network
from nxc_testing.errors import DeploymentError

TALK = """
exec 3<>/dev/tcp/two/5000
for i in $(seq 1 50); do echo $i >&3; sleep 0.1; done
exec 3>&-
"""


@pytest.fixture(scope="module")
def machines(shared_lab: Lab) -> Deployment:
    made = shared_lab.deploy(shared_lab.role("one"), shared_lab.role("two"))
    boot(*made.nodes)
    return made


@pytest.fixture
def pair(machines: Deployment) -> Iterator[Deployment]:
    """Two machines that run and reach each other."""
    yield machines
    for node in machines.nodes:
        node.set_link(True)
    boot(*machines.nodes)


def pings(pair: Deployment) -> bool:
    return run(pair.nodes[0], "ping -c 1 -W 1 two")[0] == 0


def test_a_cut_link_carries_nothing_and_a_restored_one_does(pair: Deployment) -> None:
    one, _ = pair.nodes
    assert pings(pair)
    one.set_link(False)
    assert not pings(pair)
    one.set_link(True)
    until(lambda: pings(pair))


def test_a_tcp_connection_survives_a_cut_of_three_seconds(pair: Deployment) -> None:
    one, two = pair.nodes
    addresses = "hostname -I; ip route"
    before = succeed(one, addresses), succeed(two, addresses)
    succeed(two, "systemd-run -q -u listener bash -c 'nc -lN 5000 </dev/null >/run/heard'")
    succeed(two, "until ss -Hltn sport = 5000 | grep -q .; do sleep 0.05; done")
    succeed(one, f"systemd-run -q --wait -u talker bash -c '{TALK}' & sleep 1")
    one.set_link(False)
    heard = succeed(two, "wc -l </run/heard")
    cut = succeed(one, "hostname -I")
    time.sleep(3)
    assert int(succeed(two, "wc -l </run/heard")) <= int(heard) + 1
    one.set_link(True)
    until(lambda: succeed(two, "wc -l </run/heard") == "50")
    assert succeed(two, "cat /run/heard").split() == [str(i) for i in range(1, 51)]
    assert cut.split() == [one.addresses["lan"]]
    assert (succeed(one, addresses), succeed(two, addresses)) == before


def test_shells_survive_a_cut(pair: Deployment) -> None:
    one, _ = pair.nodes
    one.set_link(False)
    assert succeed(one, "echo still here") == "still here"


def test_every_network_of_a_machine_is_cut(lab: Lab) -> None:
    made = lab.deploy(
        lab.role("one", count=2, networks=("lan", "storage")),
        networks=(Network("lan"), Network("storage")),
    )
    boot(*made.nodes)
    one, two = made.nodes
    ping = [f"ping -c 1 -W 1 {address}" for address in two.addresses.values()]
    assert [run(one, command)[0] for command in ping] == [0, 0]
    two.set_link(False)
    assert [run(one, command)[0] for command in ping] == [1, 1]


def test_a_cut_is_one_machines_alone(lab: Lab) -> None:
    made = lab.deploy(lab.role("node", count=3))
    boot(*made.nodes)
    made.nodes[0].set_link(False)
    succeed(made.nodes[1], "ping -c 1 -W 5 node3")


def test_a_cut_machine_stays_cut_over_a_reboot(pair: Deployment) -> None:
    one, _ = pair.nodes
    one.set_link(False)
    one.reboot(30)
    assert not pings(pair)
    one.set_link(True)
    until(lambda: pings(pair))


def test_a_machine_can_be_cut_before_it_starts(lab: Lab) -> None:
    made = lab.deploy(lab.role("one"), lab.role("two"))
    made.nodes[0].set_link(False)
    boot(*made.nodes)
    assert not pings(made)


def test_a_forwarded_port_leads_into_the_machine(pair: Deployment) -> None:
    _, two = pair.nodes
    serve(two, 7000, "from two")
    two.forward_port(17000, 7000)
    assert call(("127.0.0.1", 17000)) == b"from two\n"
    assert call(("127.0.0.1", 17000)) == b"from two\n"


def test_a_forwarded_port_survives_a_reboot(pair: Deployment) -> None:
    _, two = pair.nodes
    two.forward_port(17001, 7000)
    two.reboot(30)
    boot(two)
    serve(two, 7000, "again")
    assert call(("127.0.0.1", 17001)) == b"again\n"


def test_a_forwarded_port_closes_with_the_deployment(lab: Lab) -> None:
    lab.machine().forward_port(17002, 7000)
    lab.close()
    with pytest.raises(ConnectionRefusedError):
        call(("127.0.0.1", 17002))


def test_forwarding_a_port_that_is_taken_says_which(pair: Deployment) -> None:
    pair.nodes[0].forward_port(17003, 7000)
    with pytest.raises(DeploymentError, match="one: forwarding port 17003"):
        pair.nodes[0].forward_port(17003, 7000)
