"""Machines that make themselves, by the contract of NixOS' `run-NAME-nspawn`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nxc_testing import backends
from nxc_testing.backends.fake import FakeBackend
from nxc_testing.backends.host import storage, switch
from nxc_testing.backends.nspawn.removal import KIND
from nxc_testing.composition.toml import load
from nxc_testing.driver import Driver
from nxc_testing.errors import ConfigError, Unsupported
from nxc_testing.images import Image
from nxc_testing.images.roots import unpacked
from nxc_testing.launch import Settings, open_driver
from nxc_testing.machine import Machine
from nxc_testing.session import Session

SCRIPT = Path(__file__).parent / "run-debian-nspawn"
ROLES = '[roles.alpha]\nstart_script = "run-{name}-nspawn"\n'
ROLES += ROLES.replace("alpha", "beta")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Path:
    """A composition of two machines, and what `nix build` would have made for it."""
    root = tmp_path_factory.mktemp("scripts")
    (root / "lower").symlink_to(unpacked(image))
    for rank, name in enumerate(("alpha", "beta"), 1):
        shutil.copy(SCRIPT, root / f"run-{name}-nspawn")
        (root / f"rank-{name}").write_text(str(rank))
    (root / "composition.toml").write_text(ROLES)
    return root


@pytest.fixture(scope="module")
def driver(project: Path) -> Iterator[Driver]:
    with (
        closing(Session(project)) as session,
        open_driver(load(project), Settings(backend="nspawn"), session) as driver,
    ):
        driver.start_all()
        yield driver


@pytest.fixture
def alpha(driver: Driver) -> Machine:
    return driver.machine("alpha")


@pytest.fixture
def beta(driver: Driver) -> Machine:
    return driver.machine("beta")


def test_a_script_finds_the_environment_of_the_contract_and_no_other(alpha: Machine) -> None:
    alpha.wait_for_unit("multi-user.target")
    names = alpha.succeed("cat /tmp/shared/environment-alpha").split()
    assert names == ["NOTIFY_SOCKET", "RUN_NSPAWN_ROOT_DIR", "RUN_NSPAWN_SHARED_DIR"]


def test_machines_have_their_names(alpha: Machine, beta: Machine) -> None:
    assert alpha.succeed("hostname") == "alpha\n"
    assert beta.succeed("hostname") == "beta\n"


def test_they_have_the_addresses_that_nixos_gives(alpha: Machine, beta: Machine) -> None:
    for machine, address in ((alpha, "192.168.1.1"), (beta, "192.168.1.2")):
        assert machine.node.addresses == {"lan": address}
        assert f"{address}/24" in machine.succeed("ip -4 -o address show eth1")


def test_they_reach_each_other_and_can_be_cut(alpha: Machine, beta: Machine) -> None:
    ping = "ping -c 1 -W 1 192.168.1.2"
    alpha.succeed(ping)
    beta.block()
    alpha.fail(ping)
    beta.unblock()
    alpha.wait_until_succeeds(ping, timeout=30)


def test_a_directory_is_shared(alpha: Machine, beta: Machine) -> None:
    alpha.succeed("echo shared >/tmp/shared/note")
    assert beta.succeed("cat /tmp/shared/note") == "shared\n"


def test_the_journal_is_in_the_console_log(beta: Machine) -> None:
    beta.succeed("systemd-run -q --wait echo said to the journal")
    beta.wait_for_console_text("said to the journal", timeout=30)


def test_a_crash_and_a_reboot_give_new_boots(beta: Machine) -> None:
    for number, end in enumerate((beta.crash, beta.reboot), 2):
        beta.succeed("touch /run/old; echo kept >/root/note")
        end()
        beta.start()
        assert beta.node.boot is not None
        assert beta.node.boot.number == number
        beta.fail("test -e /run/old")
        assert beta.succeed("cat /root/note") == "kept\n"


def test_a_shutdown_in_order_is_seen(beta: Machine) -> None:
    beta.shutdown()
    assert beta.node.boot is not None
    assert beta.node.boot.reason == "it powered off"
    beta.start()


def test_the_host_is_not_in_their_networks(alpha: Machine) -> None:
    with pytest.raises(Unsupported, match="forward_port is not supported on backend nspawn"):
        alpha.forward_port(18080, 80)


def test_two_runs_do_not_meet(project: Path, driver: Driver) -> None:
    with (
        closing(Session(project)) as session,
        open_driver(load(project), Settings(backend="nspawn"), session) as other,
    ):
        other.start_all()
        other.machine("alpha").succeed("hostname other")
        other.machine("beta").crash()
        other.machine("alpha").fail("ping -c 1 -W 1 192.168.1.2")
        # An earlier test has given it another hardware address, which alpha may not know yet.
        driver.machine("alpha").wait_until_succeeds("ping -c 1 -W 1 192.168.1.2", timeout=60)
    assert not storage.directory_of(session.id, KIND).exists()
    assert not [name for name in switch.names() if session.id in name]
    assert driver.machine("alpha").succeed("hostname") == "alpha\n"


def test_nothing_is_left_in_run(driver: Driver) -> None:
    assert not Path("/run/nixos-nspawn").exists()
    assert not Path("/run/netns/nixos-nspawn-alpha").exists()


def test_another_backend_refuses_it(project: Path) -> None:
    with (
        closing(Session(project)) as session,
        pytest.raises(ConfigError, match="backend fake runs no start scripts"),
    ):
        open_driver(load(project), Settings(backend=FakeBackend.name), session)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('disks = { vdb = "4M" }', "knows nothing of disks"),
        ("ports = [80]", "knows nothing of ports"),
        ('[volumes.users]\npath = "/users"', "knows nothing of volumes.users"),
    ],
)
def test_what_a_script_would_not_do_is_refused(
    project: Path, tmp_path: Path, more: str, told: str
) -> None:
    (tmp_path / "run-a-nspawn").symlink_to(SCRIPT)
    text = f'[roles.a]\nstart_script = "run-a-nspawn"\n{more}\n'
    (tmp_path / "composition.toml").write_text(text)
    with closing(Session(tmp_path)) as session, pytest.raises(ConfigError, match=told):
        open_driver(load(tmp_path), Settings(backend="nspawn"), session)


def test_a_script_that_is_not_there_is_told(project: Path, tmp_path: Path) -> None:
    (tmp_path / "composition.toml").write_text('[roles.a]\nstart_script = "run-{name}-nspawn"\n')
    with (
        closing(Session(tmp_path)) as session,
        pytest.raises(ConfigError, match=r"start_script: .*/run-a-nspawn is no program"),
    ):
        open_driver(load(tmp_path), Settings(backend="nspawn"), session)


def test_nspawn_is_a_kind_of_machine_that_scripts_ask_for(driver: Driver) -> None:
    assert [machine.name for machine in driver.symbols()["machines_nspawn"]] == ["alpha", "beta"]
    assert backends.choose("nspawn").name == "nspawn"
