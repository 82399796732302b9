"""Whatever happens to pytest, nothing of the run's virtual machines is left on the host."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_lab import LONG, RunLab, run_lab, until

from nxc_testing.backends.nspawn import NspawnBackend
from nxc_testing.backends.qemu import QemuBackend
from nxc_testing.backends.qemu.helpers import virtiofsd

WITH_VOLUME = '[volumes.users]\npath = "/users"\n' if virtiofsd() else ""
MORE = f"""
disks = {{ vdb = "4M" }}
[networks.lan]
[networks.wan]
{WITH_VOLUME}
"""

WAIT = "def test_it(driver):\n    driver.start_all()\n    linger()\n"

COMMAND = """
def test_it(one):
    one.succeed("true")
    one.forward_port(0, 80)
    one.block()
    reached("there")
    one.succeed("sleep 1000")
"""

GREEN = "def test_it(one):\n    assert one.succeed('hostname') == 'one\\n'\n"

# A machine without a system; its script waits for it, and has somebody beside it.
SCRIPT = f"""#!/bin/sh
sleep {LONG} &
qemu-system-x86_64 -nodefaults -machine q35,accel=tcg \\
    -netdev "vde,id=one,sock=$QEMU_VDE_SOCKET_1" -device virtio-net-pci,netdev=one \\
    $QEMU_OPTS "$@"
"""


@pytest.fixture
def lab(tmp_path: Path, runtime: Path) -> Iterator[RunLab]:
    """Runs with machines of QEMU."""
    if why := QemuBackend().unavailable():
        pytest.skip(why)
    from nxc_testing.images.builder import ensure
    from nxc_testing.images.vm import into_vm

    into_vm(ensure("base"))
    with run_lab(tmp_path, runtime, "qemu") as lab:
        yield lab
        # What a failed test has left.
        for id_ in {one for run in lab.runs for one in run.ids if lab.left()}:
            lab.try_nxc_test("reap", id_)


@pytest.mark.parametrize(
    ("test", "number"),
    [(WAIT, signal.SIGKILL), (COMMAND, signal.SIGKILL), (COMMAND, signal.SIGTERM)],
    ids=["killed while machines boot", "killed with faults", "terminated"],
)
def test_an_end_from_outside_leaves_nothing(lab: RunLab, test: str, number: signal.Signals) -> None:
    lab.composition(test, more=MORE)
    run = lab.start()
    run.reaches("there", 300)
    left = " ".join(lab.left())
    kinds = ["guest=one", "switch.py", "/var/tmp/nxc-", *(["virtiofsd"] if WITH_VOLUME else [])]
    for kind in kinds:
        assert kind in left
    run.kill(number)
    lab.all_is_gone()


@pytest.fixture
def lab_beside_containers(tmp_path: Path, runtime: Path) -> Iterator[RunLab]:
    """Runs with containers, which may have virtual machines beside them."""
    for backend in (NspawnBackend(), QemuBackend()):
        if why := backend.unavailable():
            pytest.skip(why)
    with run_lab(tmp_path, runtime, "nspawn") as lab:
        yield lab
        for id_ in {one for run in lab.runs for one in run.ids if lab.left()}:
            lab.try_nxc_test("reap", id_)


def test_a_kill_leaves_nothing_of_containers_and_virtual_machines(
    lab_beside_containers: RunLab,
) -> None:
    lab = lab_beside_containers
    wait = "    one.wait_until_succeeds('ping -c 1 two')\n"
    test = f"def test_it(driver, one):\n    driver.start_all()\n{wait}    linger()\n"
    lab.composition(test, more='[roles.two]\nbackend = "qemu"\n')
    run = lab.start()
    run.reaches("there", 300)
    left = " ".join(lab.left())
    for kind in ("guest=two", "uplink.py", "network namespace", "control group"):
        assert kind in left
    run.kill()
    lab.all_is_gone()


def test_kill_in_the_middle_of_a_deployment_leaves_nothing(lab: RunLab) -> None:
    lab.composition(WAIT, more=MORE)
    run = lab.start()
    until(lambda: "/var/tmp/nxc-" in " ".join(lab.left()), 120, "there is a directory")
    run.kill()
    lab.all_is_gone()


def test_a_kept_run_can_be_reaped_without_its_directory(lab: RunLab) -> None:
    lab.composition(GREEN, more=MORE)
    run = lab.start("--nxc-keep")
    assert run.ends(300) == 0
    (directory,) = lab.directories()
    for file in directory.rglob("*"):
        file.unlink()
    directory.rmdir()
    (id_,) = run.ids
    assert id_ in lab.nxc_test("ps")
    lab.nxc_test("reap", id_)
    assert lab.left() == []


def test_kill_leaves_nothing_of_a_start_script(lab: RunLab) -> None:
    lab.composition(WAIT)
    (lab.root / "a" / "composition.toml").write_text(
        '[roles.one]\nstart_script = "run-{name}-vm"\n'
    )
    script = lab.root / "a" / "run-one-vm"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    run = lab.start()
    run.reaches("there", 300)
    left = " ".join(lab.left())
    for kind in ("virtconsole", "vde_switch", "/var/tmp/nxc-", f"sleep {LONG}"):
        assert kind in left
    run.kill()
    lab.all_is_gone()
