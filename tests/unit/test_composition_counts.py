"""Counts of machines from options and from files as NixOS-Compose takes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nxc_testing.composition import Composition, Network, Port, Role, Volume, with_counts
from nxc_testing.errors import ConfigError

SOURCE = Path("/compositions/oar/composition.toml")


def composition(*roles: Role) -> Composition:
    return Composition(
        name="oar",
        root=SOURCE.parent,
        source=SOURCE,
        roles=roles,
        networks=(Network("lan"),),
        volumes=(Volume("users", "/users", ("server", "node")),),
    )


OAR = composition(
    Role("server", "image", networks=("lan",)),
    Role("node", "image", count=2, networks=("lan",)),
)


def hosts(changed: Composition) -> list[str]:
    return [one.name for one in changed.instances()]


def refusal(*options: str, file: Path | None = None, of: Composition = OAR) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        with_counts(of, options, file)
    return caught.value


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("node=3", ["server", "node1", "node2", "node3"]),
        ("node=1", ["server", "node"]),
        ("node=0", ["server"]),
        ("node=alpha", ["server", "alpha"]),
        ("node=alpha,beta", ["server", "alpha", "beta"]),
        (" node = alpha, beta ", ["server", "alpha", "beta"]),
    ],
)
def test_an_option_gives_a_number_or_names(option: str, expected: list[str]) -> None:
    assert hosts(with_counts(OAR, [option])) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node: 3", ["server", "node1", "node2", "node3"]),
        ("node: '3'", ["server", "node1", "node2", "node3"]),
        ("node: !DefaultRole 1", ["server", "node"]),
        ("node: [alpha, beta]", ["server", "alpha", "beta"]),
        ("node:\n  - alpha\n  - no\n", ["server", "alpha", "no"]),
        ("node: 0", ["server"]),
        ("node: []", ["server"]),
        ("server:\n  - server\nnode: 1\n", ["server", "node"]),
        ("{}", ["server", "node1", "node2"]),
    ],
)
def test_a_yaml_file_gives_numbers_and_names(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    file = tmp_path / "roles.yaml"
    file.write_text(text)
    assert hosts(with_counts(OAR, file=file)) == expected


@pytest.mark.parametrize("name", ["roles.json", "roles"])
def test_a_file_of_another_name_is_json(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(json.dumps({"node": ["alpha"], "server": "2"}, indent="\t"))
    assert hosts(with_counts(OAR, file=file)) == ["server1", "server2", "alpha"]


def test_an_option_is_stronger_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "roles.yaml"
    file.write_text("node: 5\nserver: 2\n")
    assert hosts(with_counts(OAR, ["node=1"], file)) == ["server1", "server2", "node"]


def test_the_last_option_for_a_role_counts() -> None:
    assert hosts(with_counts(OAR, ["node=a,b", "node=3", "node=1"])) == ["server", "node"]


def test_nothing_said_changes_nothing() -> None:
    assert with_counts(OAR) == OAR


def test_the_composition_given_stays_as_it_is() -> None:
    before = hosts(OAR)
    with_counts(OAR, ["node=7"])
    assert hosts(OAR) == before


def test_a_role_without_machines_stays_a_role_for_its_volumes() -> None:
    changed = with_counts(OAR, ["node=0"])
    assert [role.name for role in changed.roles] == ["server", "node"]
    assert changed.volumes == OAR.volumes


def test_a_number_takes_the_place_of_names_in_the_composition() -> None:
    named = composition(Role("node", "image", 2, ("a", "b"), networks=("lan",)))
    assert hosts(with_counts(named, ["node=1"])) == ["node"]


def test_fixed_ports_are_no_obstacle_to_one_machine() -> None:
    published = composition(Role("node", "image", 1, networks=("lan",), ports=(Port(80, 8080),)))
    assert hosts(with_counts(published, ["node=a"])) == ["a"]


@pytest.mark.parametrize(
    ("option", "problem", "hint"),
    [
        ("node", "a role and its count", "node=4"),
        ("node=", "a role and its count", "node=a,b"),
        ("=4", "a role and its count", "node=4"),
        ("nod=4", 'no role "nod"', "did you mean node?"),
        ("node=-1", "-1 is too few", "0 or more"),
        ("node=a,,b", '"" in the list is not a name', "list of names"),
        ("node=1,2", '"1" cannot be a host name', '"n1"'),
        ("node=a b", '"a b" cannot be a host name', '"a-b"'),
        ("node=a,a", '"a" would be a machine of role node, but "a" is a machine', "differ"),
        ("node=server", '"server" is a role', "differ"),
        ("node=server1", 'but "server1" is the other name of server', "differ"),
        ("node=log", "shadow `log`", '"log-host"'),
        ("node=caplog", "pytest fixture `caplog`", '"caplog-host"'),
    ],
)
def test_a_wrong_option_is_named(option: str, problem: str, hint: str) -> None:
    error = refusal(option)
    assert (error.file, error.key) == (None, f"--nxc-role {option}")
    assert problem in error.problem
    assert hint in error.hint


def test_no_machine_left_is_the_last_options_fault() -> None:
    error = refusal("node=0", "server=0")
    assert error.key == "--nxc-role server=0"
    assert "no machine is left" in error.problem


def test_a_clash_is_told_to_the_option_also_where_its_role_comes_first() -> None:
    error = refusal("server=node1")
    assert error.key == "--nxc-role server=node1"
    assert 'but "node1" is a machine of role node' in error.problem


def test_a_clash_is_told_to_the_option_that_came_last() -> None:
    error = refusal("node=x", "server=a", "node=a")
    assert error.key == "--nxc-role node=a"
    assert 'but "a" is a machine of role server' in error.problem


def test_more_machines_than_a_published_port_has_room_for_are_refused() -> None:
    published = composition(Role("node", "image", 1, networks=("lan",), ports=(Port(80, 8080),)))
    error = refusal("node=2", of=published)
    assert error.key == "--nxc-role node=2"
    assert "port 8080 of the host would lead to node1 and to node2" in error.problem


YAML_WRONG = [
    ("node: 3\nserver: -1", "line 2: server", '"-1" is neither a number nor', "node: 4"),
    ("node: 1.5", "line 1: node", '"1.5" is neither a number nor', "node: 4"),
    ("node: alpha", "line 1: node", '"alpha" is neither a number nor', "[a, b]"),
    ("node:", "line 1: node", '"" is neither a number nor', "[a, b]"),
    ("node: !DefaultRole", "line 1: node", '"" is neither a number nor', "node: 4"),
    ("node: {a: 1}", "line 1: node", "YAML's map does not fit here", "[a, b]"),
    ("\n\nnode:\n  - [a]", "line 3: node", "YAML's seq does not fit here", "[a, b]"),
    ("node: [!DefaultRole 2]", "line 1: node", "YAML's !DefaultRole does not fit", "node: 4"),
    ("node: !!python/int 2", "line 1: node", "YAML's python/int does not fit", "node: 4"),
    ("node: 1\nnode: 2", "line 2: node", "twice", ""),
    ("\nnod: 1", "line 2: nod", 'no role "nod"', "did you mean node?"),
    ("node: [a", "line 1, column 9", "not YAML", ""),
    ("- node", "", "must map roles", "node: 4"),
    ("", "", "must map roles", "node: 4"),
    ("node: 2\n---\nnode: 3", "line 2, column 1", "not YAML", ""),
]


@pytest.mark.parametrize(("text", "key", "problem", "hint"), YAML_WRONG)
def test_a_wrong_yaml_file_is_named_with_its_line(
    tmp_path: Path, text: str, key: str, problem: str, hint: str
) -> None:
    file = tmp_path / "roles.yml"
    file.write_text(text)
    error = refusal(file=file)
    assert (error.file, error.key) == (file, key)
    assert problem in error.problem
    assert hint in error.hint


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    file = tmp_path / "roles.yaml"
    file.write_text(f"node: !!python/object/apply:os.mkdir ['{mark}']\n")
    assert "does not fit here" in refusal(file=file).problem
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ('{\n"node" 3\n}', "line 2, column 8", "not JSON"),
        ('{"node": 1, "node": 2}', "node", "twice"),
        ('{"node": true}', "node", "true is neither a number nor"),
        ('{"node": 1.0}', "node", "1.0 is neither a number nor"),
        ('{"node": null}', "node", "null is neither a number nor"),
        ('{"node": -2}', "node", "-2 is too few"),
        ('{"node": ["a", 2]}', "node", "2 in the list is not a name"),
        ("[4]", "", "must map roles"),
        ("node: 4", "line 1, column 1", "not JSON"),
    ],
)
def test_a_wrong_json_file_is_named(tmp_path: Path, text: str, key: str, problem: str) -> None:
    file = tmp_path / "roles.json"
    file.write_text(text)
    error = refusal(file=file)
    assert (error.file, error.key) == (file, key)
    assert problem in error.problem


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    error = refusal(file=tmp_path / "gone.yaml")
    assert error.file == tmp_path / "gone.yaml"
    assert "No such file" in error.problem
