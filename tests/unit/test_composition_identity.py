"""Who a machine is: addresses, secrets, and the files it finds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxc_testing.composition import (
    Composition,
    MachineFile,
    Network,
    Plan,
    Role,
    assign_addresses,
    hosts_entries,
    machine_files,
    make_plan,
)
from nxc_testing.errors import ConfigError

LAN = IPv4Network("192.168.1.0/24")
SOURCE = Path("/compositions/oar/composition.toml")
PINNED = "pinned value, byte for byte\t"


def composition(*roles: Role, networks: Sequence[str] = ("lan",)) -> Composition:
    return Composition(
        name="oar",
        root=SOURCE.parent,
        source=SOURCE,
        roles=roles,
        networks=tuple(Network(name) for name in networks),
        secrets={"munge": None, "key": PINNED},
        parameters={"queue": "besteffort"},
    )


def role(name: str, count: int = 1, *addresses: str, networks: Sequence[str] = ("lan",)) -> Role:
    return Role(
        name,
        "image",
        count,
        addresses=tuple(IPv4Address(text) for text in addresses),
        networks=tuple(networks),
    )


def lan(*roles: Role, subnet: IPv4Network = LAN) -> dict[str, str]:
    given = assign_addresses(composition(*roles), {"lan": subnet})
    return {host: addresses["lan"] for host, addresses in given.items()}


# addresses


def test_machines_are_numbered_by_their_sorted_names() -> None:
    assert lan(role("server"), role("node", 2), role("frontend")) == {
        "frontend": "192.168.1.1",
        "node1": "192.168.1.2",
        "node2": "192.168.1.3",
        "server": "192.168.1.4",
    }


def test_a_fixed_address_is_kept() -> None:
    assert lan(role("a"), role("b", 1, "192.168.1.200")) == {
        "a": "192.168.1.1",
        "b": "192.168.1.200",
    }


def test_a_machine_whose_number_is_taken_gets_the_lowest_that_is_free() -> None:
    assert lan(role("a", 1, "192.168.1.3"), role("b"), role("c"), role("d")) == {
        "a": "192.168.1.3",
        "b": "192.168.1.2",
        "c": "192.168.1.1",
        "d": "192.168.1.4",
    }


def test_fixed_addresses_are_those_of_a_roles_first_machines() -> None:
    assert lan(role("node", 3, "192.168.1.50", "192.168.1.51")) == {
        "node1": "192.168.1.50",
        "node2": "192.168.1.51",
        "node3": "192.168.1.3",
    }


def test_fixed_addresses_without_a_machine_are_free() -> None:
    assert lan(role("node", 1, "192.168.1.9", "192.168.1.2"), role("z"))["z"] == "192.168.1.2"


def test_fixed_addresses_hold_in_the_first_network_alone() -> None:
    both = composition(
        role("a", 1, "192.168.1.7", networks=("lan", "storage")), networks=("lan", "storage")
    )
    subnets = {"storage": IPv4Network("10.9.0.0/24"), "lan": LAN}
    assert assign_addresses(both, subnets) == {"a": {"lan": "192.168.1.7", "storage": "10.9.0.1"}}


def test_only_members_of_a_network_get_an_address_in_it() -> None:
    mixed = composition(role("a"), role("b", networks=("storage",)), networks=("lan", "storage"))
    subnets = {"lan": LAN, "storage": IPv4Network("10.9.0.0/24")}
    assert assign_addresses(mixed, subnets) == {
        "a": {"lan": "192.168.1.1"},
        "b": {"storage": "10.9.0.2"},
    }


def test_the_last_address_is_left_to_the_gateway() -> None:
    assert lan(role("node", 5), subnet=IPv4Network("10.0.0.0/29"))["node5"] == "10.0.0.5"


def test_a_member_whose_number_is_beyond_the_subnet_gets_a_free_address() -> None:
    ranked_high = composition(role("a", 9), role("z", networks=("tiny",)), networks=("lan", "tiny"))
    assert assign_addresses(ranked_high, {"tiny": IPv4Network("10.0.0.0/30")})["z"] == {
        "tiny": "10.0.0.1"
    }


def test_a_subnet_that_is_too_small_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        lan(role("node", 6), subnet=IPv4Network("10.0.0.0/29"))
    assert (caught.value.file, caught.value.key) == (SOURCE, "networks.lan.subnet")
    assert "10.0.0.0/29 has addresses for 5 machines, and there are 6" in caught.value.problem


@given(st.data())
def test_addresses_are_usable_distinct_and_as_fixed(data: st.DataObject) -> None:
    prefix = data.draw(st.integers(24, 29))
    subnet = IPv4Network(f"10.1.0.0/{prefix}")
    usable = subnet.num_addresses - 3
    counts = data.draw(
        st.lists(st.integers(1, 4), min_size=1, max_size=usable // 4 or 1).filter(
            lambda counts: sum(counts) <= usable
        )
    )
    places = data.draw(st.lists(st.integers(1, usable), unique=True, max_size=sum(counts)))
    fixed = [str(subnet[place]) for place in places]
    roles = []
    for number, count in enumerate(counts):
        mine = fixed[: data.draw(st.integers(0, count))]
        del fixed[: len(mine)]
        roles.append(role(f"r{number}-", count, *mine))
    made = composition(*roles)

    addresses = lan(*roles, subnet=subnet)

    values = [IPv4Address(text) for text in addresses.values()]
    assert len(set(values)) == sum(counts)
    assert all(subnet[1] <= value <= subnet[usable] for value in values)
    pinned = {
        one.name: str(one.role.addresses[one.index - 1])
        for one in made.instances()
        if one.index <= len(one.role.addresses)
    }
    assert pinned.items() <= addresses.items()
    for one in made.instances():
        wanted = str(subnet[one.rank])
        assert one.name in pinned or addresses[one.name] == wanted or wanted in pinned.values()
    assert lan(*roles, subnet=subnet) == addresses


# secrets


def planned(*roles: Role) -> Plan:
    return make_plan(composition(*roles), {one.name: "image" for one in roles})


def test_machines_of_a_deployment_share_a_secret() -> None:
    first, second = planned(role("node", 2)).machines
    assert first.secrets["munge"] == second.secrets["munge"]


def test_secrets_differ_from_deployment_to_deployment() -> None:
    drawn = {planned(role("node")).machines[0].secrets["munge"] for _ in range(5)}
    assert len(drawn) == 5


def test_a_pinned_secret_is_as_it_was_pinned() -> None:
    assert planned(role("node")).machines[0].secrets["key"] == PINNED


# files

ADDRESSES = {
    "server": {"lan": "192.168.1.3", "storage": "10.9.0.3"},
    "node1": {"storage": "10.9.0.1", "lan": "192.168.1.1"},
    "node2": {"storage": "10.9.0.2", "lan": "192.168.1.2"},
}


@pytest.fixture
def plan() -> Plan:
    return planned(
        role("server", networks=("lan", "storage")),
        Role("node", "image", 2, networks=("storage", "lan"), parameters={"cores": 4}),
    )


@pytest.fixture
def files(plan: Plan) -> dict[str, MachineFile]:
    """The files of node2."""
    return machine_files(plan, plan.machines[2], ADDRESSES)


def test_a_machine_finds_these_files_and_no_others(files: dict[str, MachineFile]) -> None:
    assert {path: oct(file.mode) for path, file in files.items()} == {
        "/etc/nxc/role": "0o644",
        "/etc/nxc/hostname": "0o644",
        "/etc/nxc/ip_addr": "0o644",
        "/etc/nxc/uuid": "0o644",
        "/etc/nxc/deployment.json": "0o644",
        "/etc/nxc/deployment-hosts": "0o644",
        "/etc/nxc/secrets/munge": "0o600",
        "/etc/nxc/secrets/key": "0o600",
    }


@pytest.mark.parametrize(
    ("name", "content"), [("role", "node"), ("hostname", "node2"), ("ip_addr", "10.9.0.2")]
)
def test_a_machine_knows_itself(files: dict[str, MachineFile], name: str, content: str) -> None:
    assert files[f"/etc/nxc/{name}"].content.decode() == f"{content}\n"


def test_a_machine_knows_its_uuid(plan: Plan, files: dict[str, MachineFile]) -> None:
    uuid = files["/etc/nxc/uuid"].content.decode()
    assert uuid == f"{plan.composition.uuid_of('node2')}\n"


def test_secrets_are_byte_for_byte(plan: Plan, files: dict[str, MachineFile]) -> None:
    assert files["/etc/nxc/secrets/key"].content.decode() == PINNED
    drawn = files["/etc/nxc/secrets/munge"].content.decode()
    assert re.fullmatch("[0-9a-f]{64}", drawn)
    assert drawn == plan.machines[2].secrets["munge"]


def test_no_secret_stands_in_a_file_that_all_may_read(
    plan: Plan, files: dict[str, MachineFile]
) -> None:
    public = b"".join(file.content for file in files.values() if file.mode & 0o077)
    assert [
        name for name, value in plan.machines[2].secrets.items() if value.encode() in public
    ] == []


def test_deployment_json_has_nixos_composes_form_and_more(
    plan: Plan, files: dict[str, MachineFile]
) -> None:
    uuid_of = plan.composition.uuid_of
    assert json.loads(files["/etc/nxc/deployment.json"].content) == {
        "composition": "oar",
        "nodes": ["server", "node1", "node2"],
        "deployment": {
            "192.168.1.3": {
                "role": "server",
                "host": "server",
                "index": 1,
                "uuid": str(uuid_of("server")),
                "aliases": ["server1"],
                "addresses": {"lan": "192.168.1.3", "storage": "10.9.0.3"},
                "parameters": {},
            },
            "10.9.0.1": {
                "role": "node",
                "host": "node1",
                "index": 1,
                "uuid": str(uuid_of("node1")),
                "aliases": [],
                "addresses": {"lan": "192.168.1.1", "storage": "10.9.0.1"},
                "parameters": {"cores": 4},
            },
            "10.9.0.2": {
                "role": "node",
                "host": "node2",
                "index": 2,
                "uuid": str(uuid_of("node2")),
                "aliases": [],
                "addresses": {"lan": "192.168.1.2", "storage": "10.9.0.2"},
                "parameters": {"cores": 4},
            },
        },
        "parameters": {"queue": "besteffort"},
    }


def test_all_machines_find_the_same_deployment(plan: Plan) -> None:
    found = [machine_files(plan, machine, ADDRESSES) for machine in plan.machines]
    for name in ("deployment.json", "deployment-hosts"):
        assert len({one[f"/etc/nxc/{name}"].content for one in found}) == 1


def test_deployment_hosts_has_one_line_a_host(files: dict[str, MachineFile]) -> None:
    """Compositions of NixOS-Compose count their nodes by `grep node | wc -l` in it."""
    assert files["/etc/nxc/deployment-hosts"].content.decode() == (
        "192.168.1.3 server\n10.9.0.1 node1\n10.9.0.2 node2\n"
    )


def test_hosts_entries_have_primary_addresses_and_aliases(plan: Plan) -> None:
    assert hosts_entries(plan, ADDRESSES) == [
        ("192.168.1.3", ("server", "server1")),
        ("10.9.0.1", ("node1",)),
        ("10.9.0.2", ("node2",)),
    ]


def test_uuids_are_the_same_in_every_version_of_this_package() -> None:
    assert str(composition(role("node")).uuid_of("node")) == "cc9765cd-8161-5844-88e5-28ca48c46bed"
