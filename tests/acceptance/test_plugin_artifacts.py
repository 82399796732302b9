"""What is kept of a run: for tests that failed, or for all, or nothing."""

import os
import signal
import stat

import pytest

from nxc_testing.event_log import read

pytest_plugins = ["pytester"]

LONE = "[roles.web]\n"
RED = (
    "web.succeed('echo to the console >$NXC_FAKE_CONSOLE; echo out; echo bad >&2')\nassert False\n"
)
GREEN = "web.succeed('echo out')\n"


def kept(project):
    """The files of the last run, by their names in its directory."""
    latest = project.root / "nxc-artifacts" / "latest"
    return {str(path.relative_to(latest)): path for path in latest.rglob("*") if path.is_file()}


def test_a_green_run_leaves_nothing(project):
    project.composition("oar", GREEN, roles=LONE)
    project.run().assert_outcomes(passed=1)
    assert not (project.root / "nxc-artifacts").exists()


def test_a_red_run_keeps_console_journal_and_commands(project):
    project.composition("oar", RED, roles=LONE)
    project.run()
    test = "oar-composition.toml-testScript"
    assert set(kept(project)) == {
        "events.jsonl",
        *(f"{test}/{file}" for file in ("commands.log", "web.console.log", "web.journal.log")),
    }
    console = kept(project)[f"{test}/web.console.log"].read_text()
    assert "to the console\n" in console
    # A fake machine is a part of this host, and so has no journal.
    assert "no journal of its own" in kept(project)[f"{test}/web.journal.log"].read_text()


def test_the_commands_are_those_of_the_test(project):
    tests = """
def test_one(web): web.succeed("echo first")
def test_two(web): web.succeed("echo second; exit 3")
"""
    project.composition("oar", roles=LONE, test_it=tests)
    project.run()
    log = kept(project)["oar-test_it.py-test_two/commands.log"].read_text()
    assert [line.split(" ", 1)[1] for line in log.splitlines() if " after " not in line] == [
        "web: $ echo second; exit 3",
        "web: second",
    ]
    assert "web: exit code 3 after " in log


def test_all_machines_are_in_it_also_those_that_the_test_did_not_name(project):
    project.composition("oar", "start_all()\nassert False\n")
    project.run()
    consoles = {os.path.basename(name) for name in kept(project) if name.endswith("console.log")}
    assert consoles == {f"{host}.console.log" for host in ("server", "my-node1", "my-node2")}


def test_a_dead_machine_tells_what_its_console_printed(project):
    test = """
def test_it(web):
    web.succeed("echo last words >$NXC_FAKE_CONSOLE")
    web.wait_for_console_text("last words", timeout=10)
    web.node.kill()
    web.succeed("true")
"""
    project.composition("oar", roles=LONE, test_it=test)
    project.run()
    place = "oar-test_it.py-test_it"
    assert "last words" in kept(project)[f"{place}/web.console.log"].read_text()
    assert "off" in kept(project)[f"{place}/web.journal.log"].read_text()


FIXTURES = """
import pytest

@pytest.fixture
def broken(web):
    web.succeed("echo in set-up")
    assert False

@pytest.fixture
def breaks(web):
    yield
    web.succeed("echo in tear-down")
    assert False

@pytest.fixture(scope="session")
def breaks_late(web):
    yield
    web.succeed("echo at the end")
    assert False
"""


@pytest.mark.parametrize(
    ("fixture", "said"),
    [("broken", "in set-up"), ("breaks", "in tear-down"), ("breaks_late", "at the end")],
)
def test_it_is_kept_whatever_phase_fails(project, fixture, said):
    project.composition("oar", roles=LONE, test_it=f"{FIXTURES}\ndef test_it({fixture}): pass\n")
    result = project.run()
    assert f"web: {said}" in kept(project)["oar-test_it.py-test_it/commands.log"].read_text()
    assert "oar-test_it.py-test_it/web.console.log" in kept(project)
    result.stdout.fnmatch_lines(["*nxc: console of web*", "fake machine web: boot 1"])


def test_the_report_shows_the_end_of_each_console(project):
    script = """
web.succeed("seq 100 >$NXC_FAKE_CONSOLE")
web.wait_for_console_text("100", timeout=10)
assert False
"""
    project.composition("oar", script, roles=LONE)
    result = project.run()
    lines = "\n".join(result.outlines).partition("nxc: console of web")[2].splitlines()
    assert lines[1:11] == [str(number) for number in range(91, 101)]


def test_the_report_shows_more_of_the_machine_that_failed_and_shows_it_last(project):
    script = """
for machine in machines:
    machine.succeed("seq 100 >$NXC_FAKE_CONSOLE")
    machine.wait_for_console_text("100", timeout=10)
my_node1.succeed("false")
"""
    project.composition("oar", script)
    result = project.run()
    text = "\n".join(result.outlines)
    parts = [part.splitlines() for part in text.split("nxc: console of ")[1:]]
    shown = {part[0].split()[0]: len([line for line in part if line.isdigit()]) for part in parts}
    assert list(shown.items()) == [("my-node2", 3), ("server", 3), ("my-node1", 10)]


def test_the_report_tells_where_it_is(project):
    project.composition("oar", RED, roles=LONE)
    result = project.run()
    result.stdout.fnmatch_lines(
        ["*nxc: artifacts*", f"{project.root}/nxc-artifacts/*/oar-composition.toml-testScript"]
    )
    result.stdout.fnmatch_lines(["=* nxc: artifacts =*", "nxc-artifacts/2*"])


def test_off_keeps_nothing_and_still_shows_the_ends(project):
    project.composition("oar", RED, roles=LONE)
    result = project.run("--nxc-artifacts=off")
    assert not (project.root / "nxc-artifacts").exists()
    result.stdout.fnmatch_lines(["*nxc: console of web*"])
    result.stdout.no_fnmatch_line("*nxc: artifacts*")


def test_on_keeps_green_tests_too(project):
    project.composition("oar", GREEN, roles=LONE)
    project.run("--nxc-artifacts=on").assert_outcomes(passed=1)
    log = kept(project)["oar-composition.toml-testScript/commands.log"].read_text()
    assert "web: $ echo out" in log


def test_another_directory_can_be_chosen(project):
    project.composition("oar", RED, roles=LONE)
    project.run("--nxc-artifacts-dir=else/where")
    (run,) = (project.root / "else/where").glob("2*")
    assert (run / "events.jsonl").exists()


def test_a_directory_that_cannot_be_is_an_error_before_any_test(project):
    (project.root / "file").write_text("")
    project.composition("oar", RED, roles=LONE)
    result = project.run("--nxc-artifacts-dir=file")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --nxc-artifacts-dir *file*--nxc-artifacts=off*"])


def test_others_cannot_read_it(project):
    project.composition("oar", RED, roles=LONE)
    project.run()
    (run,) = (project.root / "nxc-artifacts").glob("2*")
    assert stat.S_IMODE(run.stat().st_mode) == 0o700


def test_git_does_not_see_it(project):
    project.composition("oar", RED, roles=LONE)
    project.run()
    project.shell("git init -q . && git add -A")
    assert "nxc-artifacts" not in project.shell("git ls-files")


def test_runs_do_not_overwrite_each_other(project):
    project.composition("oar", RED, roles=LONE)
    project.run()
    project.run()
    assert len(list((project.root / "nxc-artifacts").glob("2*"))) == 2


def test_a_green_run_leaves_what_others_kept(project):
    composition = project.composition("oar", RED, roles=LONE)
    project.run()
    (composition / "test_script.py").write_text(GREEN)
    project.run()
    assert "events.jsonl" in kept(project)
    assert len(list((project.root / "nxc-artifacts").glob("2*"))) == 1


def test_tests_of_like_names_have_directories_of_their_own(project):
    test = """
import pytest

@pytest.mark.parametrize("what", ["a b", "a/b", "a" * 300])
def test_it(web, what):
    assert False
"""
    project.composition("oar", roles=LONE, test_it=test)
    project.run()
    latest = project.root / "nxc-artifacts" / "latest"
    assert len([path for path in latest.iterdir() if path.is_dir()]) == 3


def test_machines_that_could_not_be_made_leave_the_event_log(project):
    (project.root / "oar").mkdir()
    project.composition("oar", GREEN, roles=LONE)
    project.conftest(
        "def pytest_nxc_session_start(session):\n"
        "    session.look_for_dead_runs = None  # breaks the making of machines\n"
    )
    project.run().assert_outcomes(errors=1)
    assert set(kept(project)) == {"events.jsonl"}


def test_a_test_that_is_cancelled_tells_where_it_was(project):
    """SIGTERM is how a pipeline ends a job that hangs."""
    test = f"""
import os, threading

def test_it(web):
    threading.Timer(1, os.kill, (os.getpid(), {int(signal.SIGTERM)})).start()
    web.succeed("sleep 1000")
"""
    project.composition("oar", roles=LONE, test_it=test)
    result = project.run()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "web: $ sleep 1000" in kept(project)["oar-test_it.py-test_it/commands.log"].read_text()
    result.stdout.fnmatch_lines(["=* nxc: artifacts =*"])


def test_a_killed_run_leaves_its_event_log(project):
    test = """
import os, signal

def test_it(web):
    web.succeed("echo out")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    project.composition("oar", roles=LONE, test_it=test)
    project.run()
    project.wait_reaped()
    (log,) = (project.root / "nxc-artifacts").glob("2*/events.jsonl")
    assert [event.text for event in read(log) if event.type == "command-output"] == ["out\n"]


def test_a_test_that_the_test_bed_failed_is_an_error(project):
    tests = """
def test_product(web): assert False
def test_bed(web):
    web.start()
    web.node.kill()
    web.succeed("true")
"""
    project.composition("oar", roles=LONE, test_it=tests)
    result = project.run()
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["FAILED oar/test_it.py::test_product*", "ERROR oar/test_it.py::test_bed - *MachineDied*"]
    )
