"""Machines that make themselves, by the contract of NixOS' `run-NAME-vm`."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from script_lab import make_project

from nxc_testing import backends
from nxc_testing.backends.qemu import helpers, process, script
from nxc_testing.backends.qemu.relay import PacketDecoder
from nxc_testing.composition.toml import load
from nxc_testing.conformance.target import PATIENCE, Attempt, eventually
from nxc_testing.driver import Driver
from nxc_testing.errors import (
    ConfigError,
    ConnectionLost,
    DeploymentError,
    MachineDied,
    ShellLost,
    Unsupported,
)
from nxc_testing.launch import Settings, open_driver
from nxc_testing.machine import Machine
from nxc_testing.session import Session

BIG = 10 << 20

TEST_SCRIPT = """
start_all()
with subtest("they reach each other by name"):
    alpha.succeed("ping -c 1 beta")
    beta.succeed("ping -c 1 alpha")
with subtest("there is nobody else"):
    alpha.fail("ping -c 1 gamma")
"""

# Hands on nothing of QEMU_OPTS but what runs the machine.
DEAF = """#!/bin/bash
QEMU_OPTS=$(grep -o -e '-machine accel=[a-z]*' <<<"$QEMU_OPTS")
export QEMU_OPTS
exec "$(dirname "$0")/{real}/run-{name}-vm" "$@"
"""

EMPTY_MACHINE = """#!/bin/bash
exec qemu-system-x86_64 -nodefaults -machine q35,accel=tcg "$@"
"""


@contextmanager
def opened(project: Path) -> Iterator[Driver]:
    with (
        closing(Session(project)) as session,
        open_driver(load(project), Settings(backend="qemu"), session) as driver,
    ):
        yield driver


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    if why := backends.create("qemu").unavailable():
        pytest.skip(why)
    root = make_project(tmp_path_factory.mktemp("scripts"), ("alpha", "beta"))
    (root / "test_script.py").write_text(TEST_SCRIPT)
    text = (root / "composition.toml").read_text()
    text += 'ports = [80]\nmemory = "600M"\nkernel_parameters = ["nxc.test=1"]\n'
    text += '[test_script]\nfile = "test_script.py"\n'
    (root / "composition.toml").write_text(text)
    with opened(root) as driver:
        driver.test_script()
        yield driver


@pytest.fixture
def alpha(driver: Driver) -> Machine:
    return driver.machine("alpha")


@pytest.fixture
def beta(driver: Driver) -> Machine:
    return driver.machine("beta")


def shared(driver: Driver) -> Path:
    """The directory of the host that all machines see."""
    return driver.machine("alpha").shared_dir


def boot_number(machine: Machine) -> int:
    assert machine.node.boot is not None
    return machine.node.boot.number


# --- what the script is told


def test_a_script_finds_the_environment_of_the_contract(driver: Driver, alpha: Machine) -> None:
    given = dict(
        line.split("=", 1)
        for line in (shared(driver) / "environment-alpha").read_text().splitlines()
    )
    state = Path(given["TMPDIR"])
    assert state == alpha.state_dir.resolve()
    assert given["USE_TMPDIR"] == "1"
    assert given["NIX_DISK_IMAGE"] == str(state / "alpha.qcow2")
    assert given["SHARED_DIR"] == str(shared(driver))
    assert Path(given["QEMU_VDE_SOCKET_1"], "ctl").is_socket()
    assert (state / "alpha.qcow2").exists()
    assert (state / "xchg").is_dir()


def test_it_gets_what_the_role_asks_for(beta: Machine) -> None:
    assert "nxc.test=1" in beta.succeed("cat /proc/cmdline").split()
    kibibytes = int(beta.succeed("sed -n 's/^MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo"))
    assert kibibytes > 500_000


def test_machines_have_the_names_and_addresses_that_nixos_gives(
    alpha: Machine, beta: Machine
) -> None:
    for machine, address in ((alpha, "192.168.1.1"), (beta, "192.168.1.2")):
        assert machine.succeed("hostname") == f"{machine.name}\n"
        assert machine.node.addresses == {"lan": address}
        assert f"{address}/24" in machine.succeed("ip -4 -o address show eth1")


def test_a_directory_is_shared(driver: Driver, alpha: Machine, beta: Machine) -> None:
    alpha.succeed("echo from alpha >/tmp/shared/note")
    assert beta.succeed("cat /tmp/shared/note") == "from alpha\n"
    assert (shared(driver) / "note").read_text() == "from alpha\n"
    (shared(driver) / "note").write_text("from the host\n")
    assert alpha.succeed("cat /tmp/shared/note") == "from the host\n"


# --- a machine like any other


def test_a_large_output_is_whole(alpha: Machine) -> None:
    result = alpha.run(f"head -c {BIG} /dev/urandom | tee /root/big", PATIENCE)
    assert len(result.stdout) == BIG
    told = alpha.succeed("sha256sum </root/big").split()[0]
    assert hashlib.sha256(result.stdout).hexdigest() == told


def test_files_are_copied_both_ways(alpha: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(300_000))
    alpha.copy_from_host(str(tmp_path / "file"), "/root/copied")
    alpha.copy_from_machine("/root/copied", str(tmp_path / "back"))
    assert (tmp_path / "back" / "copied").read_bytes() == (tmp_path / "file").read_bytes()


def test_links_are_cut_and_restored_and_shells_live_on(alpha: Machine, beta: Machine) -> None:
    ping = "ping -c 1 -W 1 beta"
    alpha.succeed(ping)
    beta.block()
    alpha.fail(ping)
    assert beta.succeed("cat /sys/class/net/eth{0,1}/carrier") == "1\n0\n"
    beta.unblock()
    alpha.wait_until_succeeds(ping, timeout=PATIENCE)


def test_the_monitors_answer(alpha: Machine) -> None:
    assert alpha.send_monitor_command("info name") == "alpha\n"
    alpha.qmp_client.send("stop")
    assert alpha.wait_for_qmp_event(lambda event: event["event"] == "STOP", 10)
    alpha.qmp_client.send("cont")


def test_the_console_is_read_and_takes_input(alpha: Machine) -> None:
    assert "connecting to host..." in alpha.get_console_log()
    alpha.succeed('(read -r line; echo "got $line" >/dev/ttyS0) </dev/ttyS0 >/dev/null 2>&1 &')
    alpha.send_console("a word\n")
    alpha.wait_for_console_text("got a word", PATIENCE)


def greeting_at(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as call:
            call.settimeout(PATIENCE)
            return call.recv(6)
    except OSError:
        return b""


def greet(machine: Machine) -> None:
    """Let a machine greet whoever calls at its port 80."""
    machine.succeed("(while :; do echo hello | nc -lN 80; done) >/dev/null 2>&1 &")


def test_ports_of_the_host_lead_to_the_machine_after_a_reboot_too(beta: Machine) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    beta.forward_port(port, 80)
    (published,) = beta.node.published_ports().values()  # type: ignore[attr-defined]
    beta.block()
    before = boot_number(beta)
    beta.succeed("echo kept >/root/note; sync")
    beta.reboot()
    assert boot_number(beta) == before + 1
    assert beta.succeed("cat /root/note") == "kept\n"
    assert beta.succeed("cat /sys/class/net/eth1/carrier") == "0\n", "it stays blocked"
    beta.unblock()
    greet(beta)
    for host_port in (port, published):
        eventually(lambda: greeting_at(host_port) == b"hello\n", f"a greeting at {host_port}")  # noqa: B023
    with pytest.raises(DeploymentError, match="Could not set up host forwarding"):
        beta.forward_port(port, 80)


def test_a_crash_is_told_and_a_machine_may_reboot_itself(beta: Machine) -> None:
    beta.succeed("sync")
    waiting = Attempt(lambda: beta.succeed("sleep 1000"))
    eventually(lambda: beta.execute("pgrep -x sleep")[0] == 0, "the command")
    beta.crash()
    assert isinstance(waiting.wait().error, MachineDied)
    beta.start(allow_reboot=True)
    before = boot_number(beta)
    beta.execute("systemctl reboot", check_output=False)
    beta.connected = False
    assert beta.succeed("cat /root/note") == "kept\n"
    assert boot_number(beta) == before + 1


def test_a_shutdown_in_order_is_seen(beta: Machine) -> None:
    beta.shutdown()
    assert beta.node.boot is not None
    assert beta.node.boot.reason == "it powered off"


# --- a machine with no other shell than that on hvc0


@pytest.fixture(scope="module")
def gamma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    root = make_project(tmp_path_factory.mktemp("deaf"), ("gamma",))
    real = make_project(root / "real", ("gamma",))
    (root / "run-gamma-vm").write_text(DEAF.format(real=real.name, name="gamma"))
    with opened(root) as driver:
        yield driver.machine("gamma")


def test_hvc0_alone_carries_commands_and_large_outputs(gamma: Machine) -> None:
    assert gamma.succeed("hostname") == "gamma\n"
    assert gamma.succeed("ls /sys/class/virtio-ports").split() == ["vport5p0"]
    result = gamma.run(f"head -c {BIG} /dev/urandom | tee /root/big", PATIENCE)
    told = gamma.succeed("sha256sum </root/big").split()[0]
    assert hashlib.sha256(result.stdout).hexdigest() == told


def test_hvc0_alone_carries_files(gamma: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(300_000))
    gamma.copy_from_host(str(tmp_path / "file"), "/root/copied")
    gamma.copy_from_machine("/root/copied", str(tmp_path / "back"))
    assert (tmp_path / "back" / "copied").read_bytes() == (tmp_path / "file").read_bytes()


def test_hvc0_gives_one_shell_at_a_time(gamma: Machine) -> None:
    gamma.connect()
    with pytest.raises(ConnectionLost, match="its only shell, on hvc0, is in use"):
        gamma.node.open_channel()


def test_what_hvc0_loses_is_told_and_the_next_command_has_a_shell(
    gamma: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gamma.connect()
    feed, came = PacketDecoder.feed, list[int]()

    def careless(decoder: PacketDecoder, data: bytes) -> bytes:
        came.append(len(data))
        return feed(decoder, data[1000:] if len(came) == 10 else data)

    monkeypatch.setattr(PacketDecoder, "feed", careless)
    with pytest.raises(ShellLost, match="hvc0 lost data"):
        gamma.succeed("head -c 1M /dev/zero")
    assert gamma.succeed("echo on") == "on\n"


def test_who_floods_hvc0_never_gets_into_an_output(gamma: Machine) -> None:
    flood = "(head -c 5M /dev/zero | tr '\\0' x >/dev/hvc0) >/dev/null 2>&1 & "
    attempt = Attempt(lambda: gamma.succeed(f"{flood} head -c 2M /dev/zero | tr '\\0' y")).wait()
    if attempt.error:
        assert isinstance(attempt.error, ShellLost)
        assert "hvc0 lost data" in str(attempt.error)
    else:
        assert attempt.result == "y" * (2 << 20)
    gamma.wait_until_fails("pgrep -x tr", timeout=PATIENCE)
    assert gamma.succeed("echo on") == "on\n"


def test_a_shell_on_hvc0_that_is_killed_is_replaced(gamma: Machine) -> None:
    gamma.execute("pkill -9 -x perl", check_output=False)
    eventually(lambda: not gamma.connected, "the end of its shell")
    assert gamma.succeed("echo on") == "on\n"


def test_hvc0_alone_shuts_down_in_order(gamma: Machine) -> None:
    gamma.connect()
    gamma.shutdown()
    assert gamma.node.boot is not None
    assert gamma.node.boot.reason == "it powered off"


# --- what goes wrong


@pytest.fixture
def write(tmp_path: Path) -> Path:
    """A project of one machine whose script is to be written."""
    (tmp_path / "composition.toml").write_text('[roles.a]\nstart_script = "run-{name}-vm"\n')
    return tmp_path


def make_script(project: Path, text: str, name: str = "run-a-vm") -> None:
    (project / name).write_text(text)
    (project / name).chmod(0o755)


def runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def test_a_script_that_fails_is_told_with_what_it_said(write: Path) -> None:
    make_script(write, "#!/bin/sh\necho there is no disk here >&2\nexit 3\n")
    with (
        opened(write) as driver,
        pytest.raises(DeploymentError, match="start script ended with status 3") as caught,
    ):
        driver.machine("a").start()
    assert "there is no disk here" in str(caught.value)


def test_a_qemu_that_ends_at_once_is_told_with_what_it_said(write: Path) -> None:
    make_script(write, EMPTY_MACHINE.replace("-nodefaults", "-nodefaults -no-such-option"))
    with (
        opened(write) as driver,
        pytest.raises(DeploymentError, match="start script ended with status 1") as caught,
    ):
        driver.machine("a").start()
    assert "-no-such-option: invalid option" in str(caught.value)


def test_a_script_that_never_comes_to_its_qemu_is_given_up(
    write: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "SCRIPT_TIMEOUT", 1.0)
    make_script(write, "#!/bin/sh\necho making a disk\nsleep 1000\n")
    with (
        opened(write) as driver,
        pytest.raises(DeploymentError, match="has not come to a QEMU") as caught,
    ):
        driver.machine("a").start()
    assert "making a disk" in str(caught.value)


def test_a_backdoor_that_never_comes_is_told_with_the_console(
    write: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GREETING_TIMEOUT", 3.0)
    make_script(write, EMPTY_MACHINE)
    with (
        opened(write) as driver,
        pytest.raises(
            ConnectionLost, match=r"no 'Spawning backdoor root shell\.\.\.' on"
        ) as caught,
    ):
        driver.machine("a").succeed("true")
    assert "SeaBIOS" in str(caught.value)


def test_a_qemu_that_ends_before_the_backdoor_is_told_at_once(write: Path) -> None:
    make_script(write, EMPTY_MACHINE)
    with opened(write) as driver:
        machine = driver.machine("a")
        machine.start()
        waiting = Attempt(lambda: machine.succeed("true"))
        os.kill(machine.pid, signal.SIGKILL)
        error = waiting.wait().error
    assert isinstance(error, MachineDied)
    assert "signal 9" in error.reason


def test_a_script_that_does_not_become_its_qemu_is_ended_with_it(write: Path) -> None:
    make_script(write, EMPTY_MACHINE.replace("exec ", "sleep 1000 &\n") + "echo behind it\n")
    with opened(write) as driver:
        machine = driver.machine("a")
        machine.start()
        parent = psutil.Process(machine.pid).parent()
        assert parent is not None
        family = [parent, *parent.children()]
        assert {one.name()[:5] for one in family} == {"run-a", "sleep", "qemu-"}
        machine.crash()
        eventually(lambda: not any(map(runs, family)), "the end of all of them")


def test_a_port_without_a_user_mode_network_is_unsupported(write: Path) -> None:
    make_script(write, EMPTY_MACHINE)
    with opened(write) as driver:
        machine = driver.machine("a")
        machine.start()
        with pytest.raises(Unsupported, match="gives it no user-mode network"):
            machine.forward_port(18080, 80)


def test_without_vde_it_is_told_what_to_install(
    write: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_script(write, EMPTY_MACHINE)
    monkeypatch.setattr(helpers, "VDE_SWITCH", "no-such-switch")
    with pytest.raises(DeploymentError, match="apt-get install vde2"), opened(write):
        pass


@pytest.mark.parametrize(
    ("name", "mode", "told"),
    [
        ("run-a-vm", 0o644, r"start_script: .*/run-a-vm is no program\n  make it executable"),
        ("other", 0o755, r"start_script: .*/run-a-vm is no program\n  build it first"),
    ],
    ids=["not executable", "missing"],
)
def test_a_script_that_cannot_be_run_is_told(write: Path, name: str, mode: int, told: str) -> None:
    make_script(write, EMPTY_MACHINE, name)
    (write / name).chmod(mode)
    with pytest.raises(ConfigError, match=told), opened(write):
        pass


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("run-{name}-nspawn", "is not called run-NAME-vm\n  backend nspawn runs it"),
        ("start-{name}", "is not called run-NAME-vm\n  NixOS calls them so"),
    ],
)
def test_a_script_of_another_kind_is_refused(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "composition.toml").write_text(f'[roles.a]\nstart_script = "{name}"\n')
    make_script(tmp_path, EMPTY_MACHINE, name.format(name="a"))
    with pytest.raises(ConfigError, match=told), opened(tmp_path):
        pass


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('disks = { vdb = "4M" }', "knows nothing of disks"),
        ('[volumes.users]\npath = "/users"', "knows nothing of volumes.users"),
        (f'[roles.b]\nimage = "{Path(__file__).with_name("full-kernel.toml")}"', "in one network"),
    ],
)
def test_what_a_script_would_not_do_is_refused(write: Path, more: str, told: str) -> None:
    make_script(write, EMPTY_MACHINE)
    with (write / "composition.toml").open("a") as file:
        file.write(f"{more}\n")
    with pytest.raises(ConfigError, match=told), opened(write):
        pass


def test_qemu_is_a_kind_of_machine_that_scripts_ask_for(driver: Driver) -> None:
    assert [machine.name for machine in driver.symbols()["machines_qemu"]] == ["alpha", "beta"]  # type: ignore[attr-defined]
