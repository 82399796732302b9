"""Virtual machines and containers of one composition, in one network."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nxc_testing import backends
from nxc_testing.backends.base import Backend
from nxc_testing.composition import Composition, Network, Role, Volume, load
from nxc_testing.driver import Driver
from nxc_testing.errors import ConfigError
from nxc_testing.images import Image
from nxc_testing.launch import Settings, open_driver
from nxc_testing.session import Session

RECIPE = '[image]\nname = "mixed"\nextends = "base"\n'
TEN_MEBIBYTES = "head -c 10485760 /dev/urandom >/tmp/data && sha256sum </tmp/data"


def composition_of(root: Path, *volumes: Volume) -> Composition:
    """A container and a virtual machine."""
    recipe = root / "image.toml"
    recipe.write_text(RECIPE)
    roles = (
        Role("near", recipe, networks=("lan", "back")),
        Role("vm", recipe, networks=("lan", "back"), backend="qemu"),
    )
    networks = (Network("lan"), Network("back"))
    return Composition("mixed", root, recipe, roles, networks, volumes)


@pytest.fixture(scope="module", params=["nspawn", "docker"])
def kind(request: pytest.FixtureRequest, base: Image) -> str:
    """What the container is."""
    backend: Backend = backends.create(request.param)
    if why := backend.unavailable():
        pytest.skip(why)
    return backend.name


@pytest.fixture(scope="module")
def pair(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Both machines, on."""
    root = tmp_path_factory.mktemp("mixed")
    session = Session(root)
    try:
        with open_driver(composition_of(root), Settings(backend=kind), session) as driver:
            driver.start_all()
            for machine in driver.machines:
                machine.connect()
            yield driver
    finally:
        session.close()


def test_each_machine_is_of_its_kind(pair: Driver, kind: str) -> None:
    assert [machine.backend for machine in pair.machines] == [kind, "qemu"]


def test_each_finds_the_other_by_its_name(pair: Driver) -> None:
    pair.machine("near").succeed("ping -c 1 -W 20 vm")
    pair.machine("vm").succeed("ping -c 1 -W 20 near")


def test_a_second_network_joins_them_too(pair: Driver) -> None:
    address = pair.machine("near").node.addresses["back"]
    pair.machine("vm").succeed(f"ping -c 1 -W 20 -I eth1 {address}")


@pytest.mark.parametrize(("sender", "receiver"), [("near", "vm"), ("vm", "near")])
def test_what_one_sends_reaches_the_other_whole(pair: Driver, sender: str, receiver: str) -> None:
    one, other = pair.machine(sender), pair.machine(receiver)
    digest = one.succeed(TEN_MEBIBYTES)
    other.succeed("systemd-run --unit take --collect sh -c 'nc -klN 5000 >/tmp/taken'")
    other.wait_for_open_port(5000)
    one.succeed(f"nc -N {receiver} 5000 </tmp/data", timeout=120)
    other.wait_until_succeeds("test $(stat -c %s /tmp/taken) = 10485760")
    other.succeed("systemctl stop take")
    assert other.succeed("sha256sum </tmp/taken") == digest


def test_a_machine_that_is_cut_off_is_cut_off_from_the_other_kind(pair: Driver) -> None:
    vm, near = pair.machine("vm"), pair.machine("near")
    vm.block()
    near.fail("ping -c 1 -W 2 vm")
    vm.unblock()
    near.wait_until_succeeds("ping -c 1 -W 2 vm")


def test_a_port_of_the_virtual_machine_is_forwarded(pair: Driver) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    vm = pair.machine("vm")
    vm.succeed("systemd-run --collect sh -c 'echo hello | nc -lN 6000'")
    vm.wait_until_succeeds("ss -ltn | grep -q :6000")
    vm.forward_port(port, 6000)
    with socket.create_connection(("127.0.0.1", port), 30) as call:
        assert call.recv(5) == b"hello"


def test_nothing_of_the_joint_is_left(kind: str, base: Image, tmp_path: Path) -> None:
    session = Session(tmp_path)
    with open_driver(composition_of(tmp_path), Settings(backend=kind), session):
        assert left(session.id)
    session.close()
    assert not left(session.id)


def left(run: str) -> str:
    """Processes that bear a run's name, and namespaces."""
    here = Path("/proc/self").resolve().name
    processes = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/environ")
        if path.parent.name != here and run.encode() in _read(path)
    ]
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return "".join(processes) + "".join(
        line for line in spaces.stdout.splitlines() if line.startswith(run)
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[roles.a]\nbackend = "qmeu"\n', "there is no backend 'qmeu'"),
        (
            '[roles.a]\nbackend = "docker"\n[roles.b]\nbackend = "nspawn"\n',
            "machines of docker and nspawn cannot be in one network",
        ),
        (
            '[roles.a]\nbackend = "nspawn"\n[roles.b]\nbackend = "qemu"\n'
            '[volumes.users]\npath = "/users"\n',
            "machines of several backends cannot share a volume",
        ),
    ],
)
def test_what_cannot_be_is_refused(base: Image, tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "image.toml").write_text(RECIPE)
    path = tmp_path / "composition.toml"
    path.write_text(f'[composition]\nname = "x"\nimage = "image.toml"\n[networks.lan]\n{text}')
    session = Session(tmp_path)
    try:
        with pytest.raises(ConfigError, match=problem) as raised:
            open_driver(load(path), Settings(backend="nspawn"), session).close()
    finally:
        session.close()
    assert str(path) in str(raised.value)
