"""composition.toml: what it means, and what is said of a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxc_testing.composition import Composition, Disk, Network, Port, ShellMode, Volume, load
from nxc_testing.composition.toml import parse_size
from nxc_testing.errors import ConfigError
from nxc_testing.tables import Origin

MINIMAL = """
[composition]
image = "debian:12"
[roles.server]
"""

FULL = """
[composition]
name = "oar"
description = "OAR: frontend, server and compute nodes"
image = "image.toml"

[test_script]
file = "script.py"
shell = "nxc"
allow_empty = true

[secrets]
munge = true
cluster_key = "pinned value"

[networks.lan]
subnet = "192.168.1.0/24"
[networks.storage]

[volumes.users]
path = "/users"
roles = ["frontend", "node"]

[roles.frontend]
[roles.server]
image = "other.toml"
networks = ["storage", "lan"]
[roles.node]
image = "ready:1"
count = 2
networks = ["lan"]
addresses = ["192.168.1.3"]
disks = { vdb = "2G", vdc = "512M" }
ports = [80, 443]
memory = "512M"
cpus = 2
kernel_parameters = ["nosmt", "panic=5"]
capabilities = ["NET_ADMIN"]
devices = ["/dev/fuse"]
privileged = true
parameters = { any = ["thing"] }

[parameters]
depth = { any = "thing" }
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A composition's directory with its files, and the given composition.toml."""
    directory = tmp_path / "hello"
    directory.mkdir()
    for name in ("image.toml", "other.toml", "script.py", "test_script.py"):
        (directory / name).write_text("")

    def to_file(text: str) -> Path:
        file = directory / "composition.toml"
        file.write_text(text)
        return file

    return to_file


@pytest.fixture
def full(write: Write) -> Composition:
    return load(write(FULL))


def refusal(file: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(file)
    return caught.value


def test_machines_come_in_the_order_of_the_file(full: Composition) -> None:
    assert [one.name for one in full.instances()] == ["frontend", "server", "node1", "node2"]


def test_ranks_follow_the_sorted_names(full: Composition) -> None:
    ranks = {one.name: one.rank for one in full.instances()}
    assert ranks == {"frontend": 1, "node1": 2, "node2": 3, "server": 4}


def test_a_lone_machine_has_its_numbered_name_as_an_alias(full: Composition) -> None:
    assert {one.name: one.aliases for one in full.instances()} == {
        "frontend": ("frontend1",),
        "server": ("server1",),
        "node1": (),
        "node2": (),
    }


def test_head_is_read(full: Composition) -> None:
    assert (full.name, full.description) == ("oar", "OAR: frontend, server and compute nodes")


def test_images_are_recipes_beside_the_file_or_names(full: Composition) -> None:
    assert [role.image for role in full.roles] == [
        full.root / "image.toml",
        full.root / "other.toml",
        "ready:1",
    ]


def test_a_start_script_is_beside_the_file_and_needs_no_image(write: Write) -> None:
    file = write('[roles.a]\nstart_script = "result/run-{name}-nspawn"\n')
    (role,) = load(file).roles
    assert role.start_script == str(file.parent / "result" / "run-{name}-nspawn")
    assert role.image == ""


def test_test_script_is_read(full: Composition) -> None:
    assert full.test_script is not None
    assert full.test_script.file == full.root / "script.py"
    assert full.test_script.shell is ShellMode.NXC
    assert full.test_script.allow_empty


def test_secrets_are_pinned_or_none(full: Composition) -> None:
    assert full.secrets == {"munge": None, "cluster_key": "pinned value"}


def test_networks_are_fixed_or_free(full: Composition) -> None:
    assert full.networks == (
        Network("lan", IPv4Network("192.168.1.0/24")),
        Network("storage"),
    )


def test_networks_of_a_role_keep_their_order_and_default_to_all(full: Composition) -> None:
    assert [role.networks for role in full.roles] == [
        ("lan", "storage"),
        ("storage", "lan"),
        ("lan",),
    ]


def test_volumes_are_read(full: Composition) -> None:
    assert full.volumes == (Volume("users", "/users", ("frontend", "node")),)


def test_role_has_what_the_file_gives_it(full: Composition) -> None:
    node = full.roles[2]
    assert node.addresses == (IPv4Address("192.168.1.3"),)
    assert node.disks == (Disk("vdb", 2 * 2**30), Disk("vdc", 512 * 2**20))
    assert node.ports == (Port(80), Port(443))
    assert (node.memory, node.cpus, node.privileged) == (512 * 2**20, 2, True)
    assert node.kernel_parameters == ("nosmt", "panic=5")
    assert (node.capabilities, node.devices) == (("NET_ADMIN",), ("/dev/fuse",))
    assert node.parameters == {"any": ["thing"]}


def test_parameters_are_read(full: Composition) -> None:
    assert full.parameters == {"depth": {"any": "thing"}}


def test_defaults_of_a_minimal_file(write: Write) -> None:
    composition = load(write(MINIMAL))
    (role,) = composition.roles
    assert composition.name == "hello"
    assert composition.test_script is None
    assert composition.networks == (Network("lan"),)
    assert composition.volumes == ()
    assert (role.count, role.hostnames, role.networks) == (1, (), ("lan",))
    assert (role.memory, role.cpus, role.privileged) == (None, None, False)
    assert not any((role.capabilities, role.devices, role.addresses, role.disks, role.ports))


def test_a_bare_test_script_table_means_strict_test_script_py(write: Write) -> None:
    script = load(write(f"{MINIMAL}[test_script]")).test_script
    assert script is not None
    assert (script.file.name, script.shell, script.allow_empty) == (
        "test_script.py",
        ShellMode.STRICT,
        False,
    )


def test_a_directory_stands_for_the_file_in_it(write: Write) -> None:
    file = write(MINIMAL)
    assert load(file.parent) == load(file)


def test_equal_files_give_equal_models_with_equal_uuids(write: Write) -> None:
    first, second = load(write(FULL)), load(write(FULL))
    assert first == second
    assert first.instances() == second.instances()


def test_uuids_come_from_the_names_of_composition_and_host(write: Write) -> None:
    one = load(write(MINIMAL)).instances()[0]
    again = load(write(MINIMAL.replace("[roles.server]", "[roles.a]\n[roles.server]")))
    other = load(write(MINIMAL.replace("image =", 'name = "other"\nimage ='))).instances()[0]
    assert one.uuid in [same.uuid for same in again.instances()]
    assert one.uuid != other.uuid


def test_hostnames_name_the_machines(write: Write) -> None:
    composition = load(write(f'{MINIMAL}hostnames = ["alpha", "beta"]'))
    assert [(one.name, one.index) for one in composition.instances()] == [("alpha", 1), ("beta", 2)]
    assert composition.roles[0].count == 2


def test_a_role_may_have_no_machine_until_it_is_asked_for(write: Write) -> None:
    composition = load(write(f"{MINIMAL}[roles.client]\ncount = 0"))
    assert [one.name for one in composition.instances()] == ["server"]


def test_a_port_may_name_the_hosts(write: Write) -> None:
    composition = load(write(f'{MINIMAL}ports = [80, "8080:80"]'))
    assert composition.roles[0].ports == (Port(80), Port(80, 8080))


def test_one_path_may_be_two_volumes_of_different_roles(write: Write) -> None:
    text = f"""{MINIMAL}[roles.client]
        [volumes.a]
        path = "/data"
        roles = ["server"]
        [volumes.b]
        path = "/data"
        roles = ["client"]
        """
    assert [volume.name for volume in load(write(text)).volumes] == ["a", "b"]


@pytest.mark.parametrize("name", ["machine", "my-node", "nfsServerNode", "n1"])
def test_good_role_names_pass(write: Write, name: str) -> None:
    assert load(write(f'[roles.{name}]\nimage = "i"')).roles[0].name == name


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert error.file == tmp_path / "composition.toml"
    assert "No such file" in error.problem


def test_a_syntax_error_gives_the_line(write: Write) -> None:
    error = refusal(write("[composition]\nname = oar\n"))
    assert error.key == "line 2, column 8"
    assert error.file is not None
    assert str(error).startswith(f"{error.file}: line 2, column 8: ")


def test_a_role_defined_twice_gives_the_line(write: Write) -> None:
    assert refusal(write(f"{MINIMAL}[roles.server]")).key.startswith("line 5")


def test_text_that_is_not_utf8_gives_the_line(write: Write) -> None:
    file = write("")
    file.write_bytes(b"[composition]\n# caf\xe9\n")
    assert refusal(file).key == "line 2"


def test_the_message_names_file_key_problem_and_remedy(write: Write) -> None:
    file = write(f"{MINIMAL}cuont = 2")
    assert str(refusal(file)) == (
        f"{file}: roles.server.cuont: this key means nothing here\n"
        "  did you mean count? known: image, count, hostnames, networks, addresses, disks, ports,"
        " memory, cpus, kernel_parameters, capabilities, devices, privileged, parameters,"
        " start_script, backend"
    )


SERVER = "roles.server"

WRONG = [
    # of types and keys
    ("[role.node]", "role", "means nothing", "did you mean roles?"),
    ('[test_script]\nfile = "script.py"\nmode = 1', "test_script.mode", "means nothing", "shell"),
    ("count = true", f"{SERVER}.count", "true does not fit", "an integer"),
    ('count = "2"', f"{SERVER}.count", '"2" does not fit', "an integer"),
    ("count = -1", f"{SERVER}.count", "too few", "0 or more"),
    ("privileged = 1", f"{SERVER}.privileged", "1 does not fit", "true or false"),
    ("cpus = 0", f"{SERVER}.cpus", "too few", "1 or more"),
    ('kernel_parameters = ["a b"]', f"{SERVER}.kernel_parameters[0]", "not one", "without blanks"),
    ("[roles]\nclient = 2", "roles.client", "does not fit", "a table"),
    ('capabilities = "NET_ADMIN"', f"{SERVER}.capabilities", "does not fit", "an array"),
    ('devices = ["/dev/fuse", 1]', f"{SERVER}.devices[1]", "does not fit", "a string"),
    ("devices = []", f"{SERVER}.devices", "is empty", "leave the key out"),
    # of references
    ('networks = ["lna"]', f"{SERVER}.networks[0]", "not the name of a network", "mean lan?"),
    ('networks = ["lan", "lan"]', f"{SERVER}.networks[1]", "twice", ""),
    ('image = "imgae.toml"', f"{SERVER}.image", "no file", "relative to"),
    ('image = "./image"', f"{SERVER}.image", "neither a recipe nor", "ends in .toml"),
    ('image = ""', f"{SERVER}.image", "neither a recipe nor", "ends in .toml"),
    ('start_script = "run-{host}"', f"{SERVER}.start_script", "has a brace", "{name}"),
    ('image = "a:1"\nstart_script = "run"', f"{SERVER}.start_script", "image too", "name one"),
    ('[test_script]\nfile = "gone.py"', "test_script.file", "no file", "relative to"),
    ('[test_script]\nshell = "strct"', "test_script.shell", "no mode", "did you mean strict?"),
    # of volumes
    ("[volumes.users]", "volumes.users.path", "missing", "a string"),
    ('[volumes.users]\npath = "users"', "volumes.users.path", "cannot be mounted", "absolute"),
    ('[volumes.users]\npath = "//users"', "volumes.users.path", "cannot be mounted", "absolute"),
    ('[volumes.users]\npath = "/a/../b"', "volumes.users.path", "cannot be mounted", "shortest"),
    ('[volumes.users]\npath = "/a:ro"', "volumes.users.path", "cannot be mounted", "`:`"),
    ('[volumes.users]\npath = "/"', "volumes.users.path", "would hide", "/users"),
    ('[volumes.users]\npath = "/etc"', "volumes.users.path", "would hide", "/users"),
    ('[volumes.users]\npath = "/dev/shm"', "volumes.users.path", "would hide", "/users"),
    (
        '[volumes.users]\npath = "/users"\nroles = ["sever"]',
        "volumes.users.roles[0]",
        "not the name of a role",
        "did you mean server?",
    ),
    (
        '[volumes.a]\npath = "/data"\n[volumes.b]\npath = "/data"\nroles = ["server"]',
        "volumes.b.path",
        "volume a is mounted at /data too, on role server",
        "",
    ),
    ('[volumes."a b"]\npath = "/data"', 'volumes."a b"', "cannot be a name", "letters"),
    # of networks and addresses
    ('[networks.lan]\nsubnet = "lan"', "networks.lan.subnet", "not an IPv4 subnet", "/24"),
    ('[networks.lan]\nsubnet = "fd00::/64"', "networks.lan.subnet", "not an IPv4 subnet", "/24"),
    ('[networks.lan]\nsubnet = "10.0.0.1/24"', "networks.lan.subnet", "written", "10.0.0.0/24"),
    ('[networks.lan]\nsubnet = "10.0.0.0/31"', "networks.lan.subnet", "no room", "/30"),
    ('[networks.lan]\nsubnet = "127.1.0.0/16"', "networks.lan.subnet", "not for machines", "10."),
    ('[networks.lan]\nsubnet = "239.0.0.0/24"', "networks.lan.subnet", "not for machines", "10."),
    (
        '[networks.a]\nsubnet = "10.0.0.0/16"\n[networks.b]\nsubnet = "10.0.9.0/24"',
        "networks.b.subnet",
        "overlaps 10.0.0.0/16 of network a",
        "",
    ),
    (
        'addresses = ["10.0.0.1"]',
        f"{SERVER}.addresses",
        "lan has no fixed subnet",
        "[networks.lan]",
    ),
    # of resources
    ('memory = "2 GB"', f"{SERVER}.memory", "not a size", "K, M, G or T"),
    ("memory = 512", f"{SERVER}.memory", "does not fit", "a string"),
    ('disks = { vdb = "0G" }', f"{SERVER}.disks.vdb", "not a size", "K, M, G or T"),
    ('disks = { vda = "1G" }', f"{SERVER}.disks.vda", "name of a disk", "vdb to vdz"),
    ("ports = [0]", f"{SERVER}.ports[0]", "0 is not a port", "8080:80"),
    ("ports = [80, 70000]", f"{SERVER}.ports[1]", "70000 is not a port", "65535"),
    ('ports = ["80"]', f"{SERVER}.ports[0]", '"80" is not a port', "like 80"),
    ('ports = ["0:80"]', f"{SERVER}.ports[0]", "port 0 of the host", "write 80"),
    ('ports = ["99999:80"]', f"{SERVER}.ports[0]", "not a port", "65535"),
    ("ports = [80, 80]", f"{SERVER}.ports[1]", "twice", ""),
    ("ports = [true]", f"{SERVER}.ports[0]", "not a port", ""),
    (
        'count = 2\nports = ["8080:80"]',
        SERVER,
        "port 8080 of the host would lead to server1 and to server2",
        "publish 80 without a host port",
    ),
    (
        'capabilities = ["CAP_NET_ADMN"]',
        f"{SERVER}.capabilities[0]",
        "Linux capability",
        "did you mean NET_ADMIN?",
    ),
    ('devices = ["fuse"]', f"{SERVER}.devices[0]", "path of a device", "/dev/fuse"),
    ('devices = ["/dev/a:/dev/b"]', f"{SERVER}.devices[0]", "path of a device", "/dev/fuse"),
    # of secrets and parameters
    ("[secrets]\nmunge = false", "secrets.munge", "true or a string", "pins"),
    ('[secrets]\nmunge = ""', "secrets.munge", "not empty", "pins"),
    ('[secrets]\n"../role" = true', 'secrets."../role"', "cannot be a name", "letters"),
    ("[parameters]\nday = 2024-05-01", "parameters.day", "JSON", "as a string"),
    ("parameters = { a = [nan] }", f"{SERVER}.parameters.a[0]", "JSON", "as a string"),
    # of names
    ('[roles.a]\nhostnames = ["x", "X"]', "roles.a", 'but "x" is a machine of role a', "case"),
    ("[roles.nfs_server]", "roles.nfs_server", "cannot be a host name", '"nfs-server"'),
    ("[roles.-x]", "roles.-x", "cannot be a host name", '"x"'),
    ("[roles.12]", "roles.12", "digits alone", '"n12"'),
    ("[roles.localhost]", "roles.localhost", "calls itself so", "localhost-host"),
    ("[roles.class]", "roles.class", "Python keyword", "class-host"),
    ("[roles.request]", "roles.request", "pytest fixture `request`", "request-host"),
    ("[roles.tmp-path]", "roles.tmp-path", "pytest fixture `tmp_path`", "tmp-path-host"),
    ("[roles.machines]\ncount = 2", "roles.machines", "shadow `machines`", "machines-host"),
    ("[roles.vlan1]", "roles.vlan1", "shadow `vlan1`", "vlan1-host"),
    ("[roles.vlan]", "roles.vlan", "shadow `vlan1`", "vlan1-host"),
    (f"[roles.{'a' * 63}]", f"roles.{'a' * 63}", "cannot be a host name", "63"),
    ('hostnames = ["a", "a"]', f"{SERVER}.hostnames[1]", "twice", ""),
    ('hostnames = ["a"]\ncount = 2', f"{SERVER}.count", "not the number of hostnames", "leave"),
    (
        "[roles.server1]",
        SERVER,
        '"server1" would be the other name of server, but "server1" is a role',
        "differ",
    ),
    (
        "[roles.Server]",
        "roles.server",
        '"server" would be a machine of role server, but "Server" is a role',
        "differ",
    ),
    ('hostnames = ["client"]\n[roles.client]', SERVER, '"client" is a role', "differ"),
    ("[roles.server1]\ncount = 2", SERVER, '"server1" is a role', "differ"),
    (
        '[roles.a]\nhostnames = ["1x", "2x"]',
        "roles.a",
        'but "1x" is a machine of role a',
        "punctuation",
    ),
]


@pytest.mark.parametrize(("text", "key", "problem", "hint"), WRONG)
def test_what_is_wrong_is_named(write: Write, text: str, key: str, problem: str, hint: str) -> None:
    file = write(f"{MINIMAL}{text}")
    error = refusal(file)
    assert (error.file, error.key) == (file, key)
    assert problem in error.problem
    assert hint in error.hint


ADDRESSED = """
[composition]
image = "i"
[networks.lan]
subnet = "10.0.0.0/29"
[networks.free]
"""


@pytest.mark.parametrize(
    ("text", "key", "problem", "hint"),
    [
        ('addresses = ["10.0.0"]', f"{SERVER}.addresses[0]", "not an IPv4", "10.0.0.1"),
        ('addresses = ["10.0.0.6"]', f"{SERVER}.addresses[0]", "for a machine", "gateway"),
        ('addresses = ["10.0.0.0"]', f"{SERVER}.addresses[0]", "for a machine", "10.0.0.1"),
        ('addresses = ["10.0.1.1"]', f"{SERVER}.addresses[0]", "for a machine", "10.0.0.5"),
        ('addresses = ["10.0.0.1", "10.0.0.1"]', f"{SERVER}.addresses[1]", "twice", ""),
        ('addresses = ["10.0.0.1", "10.0.0.2"]', f"{SERVER}.addresses", "2 for 1", "away"),
        (
            'networks = ["free", "lan"]\naddresses = ["10.0.0.1"]',
            f"{SERVER}.addresses",
            "network free has no fixed subnet",
            "[networks.free]",
        ),
        (
            'addresses = ["10.0.0.1"]\n[roles.b]\naddresses = ["10.0.0.1"]',
            "roles.b.addresses[0]",
            "10.0.0.1 is taken by role server",
            "",
        ),
        ("count = 6", "networks.lan.subnet", "for 5 machines, and there are 6", "shorter prefix"),
    ],
)
def test_wrong_addresses_are_named(
    write: Write, text: str, key: str, problem: str, hint: str
) -> None:
    error = refusal(write(f"{ADDRESSED}[roles.server]\n{text}"))
    assert error.key == key
    assert problem in error.problem
    assert hint in error.hint


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("", "roles", "there is no role"),
        ("[roles.a]", "roles.a.image", "no image"),
        ('[roles.a]\nimage = "i"\ncount = 0', "roles.a", "no machine is left"),
        ('[composition]\nname = "a/b"', "composition.name", "cannot be a name"),
    ],
)
def test_what_is_missing_is_named(write: Write, text: str, key: str, problem: str) -> None:
    if "name" in text:
        text += '\n[roles.a]\nimage = "i"'
    error = refusal(write(text))
    assert error.key == key
    assert problem in error.problem


def test_a_directory_whose_name_will_not_do_is_told_so(tmp_path: Path) -> None:
    directory = tmp_path / "my composition"
    directory.mkdir()
    (directory / "composition.toml").write_text(MINIMAL)
    error = refusal(directory)
    assert error.key == "composition.name"
    assert "the directory's name by default" in error.hint


@given(st.integers(1, 10**6), st.sampled_from("KMGT"))
def test_sizes_are_powers_of_1024(number: int, unit: str) -> None:
    size = parse_size(f"{number}{unit}", Origin("x"))
    assert size == number * 1024 ** ("KMGT".index(unit) + 1)


@given(st.text(alphabet="0123456789KMGTBi +-._", max_size=6))
def test_a_size_is_a_number_and_a_unit_or_nothing(text: str) -> None:
    good = text[:-1].isdecimal() and not text.startswith("0") and text[-1] in "KMGT"
    try:
        parse_size(text, Origin("x"))
    except ConfigError:
        assert not good
    else:
        assert good
