"""What only a virtual machine has: a monitor, terminals, a console to type into, own disks."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from qemu_lab import deployed

from nxc_testing.backends.qemu import helpers
from nxc_testing.cli import main
from nxc_testing.compat import QMPAPIError
from nxc_testing.composition import Disk, Port, Role
from nxc_testing.conformance.target import PATIENCE, eventually
from nxc_testing.errors import MachineDied, MachineUsageError, Unsupported, WaitTimeout
from nxc_testing.images import Image
from nxc_testing.machine import Machine


def heard_at(port: int) -> bytes:
    """What a port of the host says, if anything."""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as call:
            call.settimeout(PATIENCE)
            return call.recv(6)
    except OSError:
        return b""


def test_the_monitor_for_humans_answers(box: Machine) -> None:
    assert box.send_monitor_command("info name") == "box\n"
    assert box.wait_for_monitor_prompt() == ""


def test_qmp_answers(box: Machine) -> None:
    assert box.qmp_client.send("query-status")["return"]["status"] == "running"
    assert box.qmp_client.send("query-name") == {"return": {"name": "box"}}


def test_what_qmp_refuses_raises(box: Machine) -> None:
    with pytest.raises(QMPAPIError, match="no-such-thing"):
        box.qmp_client.send("no-such-thing")


def test_an_event_is_waited_for_and_not_found_twice(box: Machine) -> None:
    box.qmp_client.send("stop")
    assert box.wait_for_qmp_event(lambda event: event["event"] == "STOP", 10)["event"] == "STOP"
    box.qmp_client.send("cont")
    with pytest.raises(WaitTimeout, match="RESUME"):
        box.wait_for_qmp_event(lambda event: event["event"] == "STOP", 0.5)


def test_a_wait_for_an_event_has_a_deadline(box: Machine) -> None:
    began = time.monotonic()
    with pytest.raises(WaitTimeout):
        box.wait_for_qmp_event(lambda _: False, 0.5)
    assert time.monotonic() - began >= 0.5


def test_a_wait_for_an_event_ends_with_the_machine(box: Machine) -> None:
    threading.Timer(0.5, box.node.kill).start()
    with pytest.raises(MachineDied):
        box.wait_for_qmp_event(lambda _: False)


def test_the_console_takes_input(box: Machine) -> None:
    box.succeed('(read -r line; echo "got $line" >/dev/ttyS0) </dev/ttyS0 >/dev/null 2>&1 &')
    box.send_console("a word\n")
    box.wait_for_console_text("got a word", PATIENCE)


def test_the_console_is_a_terminal_to_talk_to(box: Machine) -> None:
    with box.interact_console(PATIENCE) as console:
        box.succeed("systemd-run -p StandardInput=tty -p TTYPath=/dev/ttyS0 bash -i")
        console.expect("root@")
        console.sendline("echo $((40 + 2)) it is")
        console.expect("42 it is")
        console.sendline("exec true")
    box.wait_for_console_text("42 it is", PATIENCE)


def test_lines_are_typed_by_hand_at_a_terminal_only(box: Machine) -> None:
    with pytest.raises(MachineUsageError, match="nxc-test shell"):
        box.console_interact()


def test_terminals_are_read(box: Machine) -> None:
    box.succeed("echo on the terminal >/dev/tty1")
    assert "on the terminal" in box.get_tty_text("1")
    box.wait_until_tty_matches("1", r"on the \w+", PATIENCE)
    with pytest.raises(WaitTimeout, match="on the terminal"):
        box.wait_until_tty_matches("1", "never shown", 0.5)


def test_a_reboot_is_a_boot_of_another_kernel(box: Machine) -> None:
    show = "cat /proc/sys/kernel/random/boot_id"
    before = box.succeed(show)
    box.reboot()
    assert box.succeed(show) != before


def test_memory_processors_and_disks_are_as_the_role_says(base: Image, tmp_path: Path) -> None:
    disks = (Disk("vdb", 8 << 20), Disk("vdc", 16 << 20))
    role = Role(
        "big",
        "base",
        networks=("lan",),
        memory=700 << 20,
        cpus=2,
        disks=disks,
        ports=(Port(80),),
        kernel_parameters=("nxc.test=1",),
    )
    with deployed(base, tmp_path, role) as driver:
        big = driver.machine("big")
        assert big.succeed("nproc") == "2\n"
        assert (
            int(big.succeed("sed -n 's/^MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo")) > 600_000
        )
        sizes = big.succeed("cat /sys/block/vd[bc]/size").split()
        assert sizes == [str((8 << 20) // 512), str((16 << 20) // 512)]
        assert "nxc.test=1" in big.succeed("cat /proc/cmdline").split()
        big.succeed("(while :; do echo hello | nc -lN 80; done) >/dev/null 2>&1 &")
        big.wait_for_open_port(80, timeout=PATIENCE)
        (port,) = big.node.published_ports().values()  # type: ignore[attr-defined]
        eventually(lambda: heard_at(port) == b"hello\n", "a greeting at the host's port")
        big.succeed("echo kept >/dev/vdb; sync")
        big.crash()
        assert big.succeed("head -c 5 /dev/vdb") == "kept\n"


def test_without_virtiofsd_there_is_no_shared_directory(
    base: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helpers, "VIRTIOFSD", ())
    role = Role("box", "base", networks=("lan",))
    refused = pytest.raises(Unsupported, match="apt-get install virtiofsd")
    with deployed(base, tmp_path, role) as driver, refused:
        driver.machine("box").shared_dir  # noqa: B018


def test_what_a_machine_boots_is_not_pruned(
    box: Machine, base: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "prune", "--all", "--dry-run"]) == 0
    name = f"{base.name} {base.digest[:12]}"
    printed = capsys.readouterr().out
    assert f"{name} stays: a virtual machine boots it" in printed
    assert f"would remove {name}" not in printed
