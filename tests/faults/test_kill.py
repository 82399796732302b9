"""Whatever happens to pytest, nothing of the run is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from run_lab import LONG, RunLab, command_line, until

BUSY = f"""
@pytest.fixture(scope="module")
def busy(one):
    one.succeed("setsid sleep {LONG} >&- 2>&- &")
    one.succeed("sleep {LONG} >&- 2>&- &")
    one.succeed("env -i sleep {LONG} >&- 2>&- &")
    return one
"""

WAIT = f"{BUSY}\ndef test_it(busy):\n    linger()\n"

COMMAND = f"""{BUSY}
def test_it(busy):
    reached("there")
    busy.succeed("sleep {LONG}")
"""


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT],
    ids=lambda number: number.name,
)
def test_a_signal_in_the_middle_of_a_command_leaves_nothing(
    lab: RunLab, number: signal.Signals
) -> None:
    lab.composition(COMMAND)
    run = lab.start()
    run.reaches("there")
    assert len(lab.left()) > 4
    run.kill(number)
    lab.all_is_gone()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=lambda one: one.name)
def test_a_signal_to_the_whole_process_group_leaves_nothing(
    lab: RunLab, number: signal.Signals
) -> None:
    lab.composition(WAIT)
    run = lab.start()
    run.reaches("there")
    os.killpg(run.process.pid, number)
    run.ends()
    lab.all_is_gone()


def test_a_request_to_all_processes_to_end_does_not_end_the_reaper(lab: RunLab) -> None:
    """As a manager of services makes it, before it kills what is still there."""
    lab.composition(WAIT)
    run = lab.start()
    run.reaches("there")
    (reaper,) = reapers(lab)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        reaper.send_signal(number)
    run.kill()
    lab.all_is_gone()


@pytest.mark.parametrize(
    "end", ["os._exit(0)", "ctypes.string_at(0)", "raise SystemExit", "pytest.exit('enough')"]
)
def test_an_end_from_within_leaves_nothing(lab: RunLab, end: str) -> None:
    lab.composition(f"{BUSY}\ndef test_it(busy):\n    reached('there')\n    {end}\n")
    lab.start().ends()
    assert (lab.root / "there").exists()
    lab.all_is_gone()


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_pytest_timeout_leaves_nothing(lab: RunLab, method: str) -> None:
    mark = f"@pytest.mark.timeout(0.5, method={method!r}, func_only=True)"
    lab.composition(f"{BUSY}\n{mark}\ndef test_it(busy):\n    linger()\n")
    run = lab.start()
    assert run.ends() != 0
    assert (lab.root / "there").exists()
    assert "Timeout" in run.text
    lab.all_is_gone()


@pytest.mark.parametrize("scope", ["session", "module", "function"])
def test_an_exception_in_set_up_leaves_nothing(lab: RunLab, scope: str) -> None:
    fixture = f"@pytest.fixture(scope={scope!r})\ndef broken(busy):\n    busy.start()\n    1 / 0\n"
    lab.composition(
        f"{BUSY}\n{fixture}\ndef test_it(broken): pass\n".replace('"module"', repr(scope))
    )
    assert lab.start().ends() == pytest.ExitCode.TESTS_FAILED
    lab.all_is_gone()


def test_frozen_machines_go_too(lab: RunLab) -> None:
    lab.composition(f"{BUSY}\ndef test_it(busy):\n    busy.node.freeze()\n    linger()\n")
    run = lab.start()
    run.reaches("there")
    run.kill()
    lab.all_is_gone()


def test_a_fork_that_outlives_the_run_does_not_keep_its_machines(lab: RunLab) -> None:
    fork = "    if os.fork() == 0:\n        time.sleep(600)\n"
    lab.composition(f"{BUSY}\ndef test_it(busy):\n{fork}    linger()\n")
    run = lab.start()
    run.reaches("there")
    (child,) = (
        child
        for child in psutil.Process(run.process.pid).children()
        if child.name() == psutil.Process(run.process.pid).name()
    )
    run.kill()
    until(lambda: lab.left() == [words(child)], 10, "only the fork is left")
    child.kill()


def words(process: psutil.Process) -> str:
    return f"process {process.pid}: {command_line(process)}"


def test_a_process_that_becomes_another_program_is_no_run_any_more(lab: RunLab) -> None:
    lab.composition(f"{BUSY}\ndef test_it(busy):\n    os.execvp('sleep', ['sleep', '1{LONG}'])\n")
    run = lab.start()
    until(lab.directories, 60, "the run begins")
    only = [f"process {run.process.pid}: sleep 1{LONG}"]
    until(lambda: lab.left() == only, 60, "only the other program is left")
    run.kill()


def test_another_run_goes_on(lab: RunLab, tmp_path: Path) -> None:
    lab.composition(WAIT)
    go = tmp_path / "go"
    lab.composition(
        "def test_it(one):\n    reached('b')\n"
        f"    while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.1)\n"
        "    assert one.succeed('echo ok') == 'ok\\n'\n",
        name="b",
    )
    killed, other = lab.start("a"), lab.start("b")
    killed.reaches("there")
    other.reaches("b")
    killed.kill()
    until(lambda: len(lab.directories()) == 1, 10, "the killed run is gone")
    go.touch()
    assert other.ends() == 0, other.text
    lab.all_is_gone()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)
def test_workers_of_xdist_go_with_their_controller(lab: RunLab, number: signal.Signals) -> None:
    lab.composition(COMMAND)
    run = lab.start("-n2")
    run.reaches("there")
    run.kill(number)
    lab.all_is_gone()


def test_a_worker_of_xdist_can_die_alone(lab: RunLab) -> None:
    lab.composition(f"{BUSY}\ndef test_it(busy):\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    assert lab.start("-n1", "--max-worker-restart=0").ends() != 0
    lab.all_is_gone()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_is_mounted_in_the_run_directory_is_unmounted_and_unharmed(
    lab: RunLab, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_text("kept")
    mount = (
        "    there = one.node.directory / 'a b'\n    there.mkdir()\n"
        f"    subprocess.run(['mount', '--bind', {str(precious)!r}, there], check=True)\n"
    )
    lab.composition(f"def test_it(one):\n    one.start()\n{mount}    linger()\n")
    run = lab.start()
    run.reaches("there")
    assert str(lab.runtime) in Path("/proc/self/mounts").read_text()
    run.kill()
    lab.all_is_gone()
    assert str(lab.runtime) not in Path("/proc/self/mounts").read_text()
    assert (precious / "data").read_text() == "kept"


def test_a_killed_reaper_is_replaced_before_something_is_made(lab: RunLab) -> None:
    lab.composition(
        "def test_first(one):\n    one.start()\n    reached('first')\n"
        f"    while not pathlib.Path({str(lab.root)!r}, 'go').exists(): time.sleep(0.1)\n"
    )
    lab.composition(WAIT.replace("one", "two"), name="b", more="[roles.two]\n")
    run = lab.start("a", "b")
    run.reaches("first")
    reapers(lab)[0].kill()
    (lab.root / "go").touch()
    run.reaches("there")
    assert len(reapers(lab)) == 1
    run.kill()
    lab.all_is_gone()


def reapers(lab: RunLab) -> list[psutil.Process]:
    return [process for process in lab.processes() if "reaper.py" in command_line(process)]


def test_what_nobody_reaped_a_person_can(lab: RunLab) -> None:
    lab.composition(WAIT)
    run = lab.start()
    run.reaches("there")
    reapers(lab)[0].kill()
    run.kill()
    (id_,) = run.ids
    assert f"{id_}  dead" in lab.nxc_test("ps")
    assert "would remove process" in lab.nxc_test("reap", "--dry-run", id_)
    assert lab.left()
    assert f"removed directory {lab.directories()[0]}" in lab.nxc_test("reap", id_)
    assert lab.left() == []


def test_the_next_run_tells_of_what_nobody_reaped(lab: RunLab) -> None:
    lab.composition(WAIT)
    lab.composition("def test_it(one): one.start()\n", name="b")
    run = lab.start("a")
    run.reaches("there")
    reapers(lab)[0].kill()
    run.kill()
    next_run = lab.start("b")
    assert next_run.ends() == 0
    assert "runs: a dead run left things behind: nxc-test reap" in next_run.text


def test_a_kept_run_is_kept_although_it_is_killed(lab: RunLab) -> None:
    lab.composition(WAIT)
    run = lab.start("--nxc-keep")
    run.reaches("there")
    run.kill()
    time.sleep(3)
    (id_,) = run.ids
    assert f"{id_}  kept" in lab.nxc_test("ps")
    sleeping = [process for process in lab.processes() if process.name() == "sleep"]
    assert len(sleeping) == 3
    lab.nxc_test("reap", id_)
    assert lab.left() == []


def test_what_a_killed_run_was_doing_in_a_kept_machine_ends(lab: RunLab) -> None:
    lab.composition(f"def test_it(one):\n    reached('there')\n    one.succeed('sleep {LONG}')\n")
    run = lab.start("--nxc-keep")
    run.reaches("there")
    until(lambda: "sleep" in [process.name() for process in lab.processes()], 10, "the command")
    run.kill()
    until(lambda: lab.processes() == [], 10, "the end of the command")
    lab.nxc_test("reap", *run.ids)


def test_a_running_run_cannot_be_reaped(lab: RunLab) -> None:
    lab.composition(WAIT)
    run = lab.start()
    run.reaches("there")
    (id_,) = run.ids
    before = lab.left()
    done = lab.try_nxc_test("reap", id_)
    assert done.returncode == 2
    assert f"{id_} is running" in done.stderr
    assert lab.left() == before
    run.kill(signal.SIGTERM)
    lab.all_is_gone()
