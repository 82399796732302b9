"""Under pytest-xdist: each composition in one worker, and nothing lost on the way from there."""

import re

import pytest

from nxc_testing.event_log import read

pytest_plugins = ["pytester"]

LONE = "[roles.web]\n"

WHERE = """
import os
import pytest

@pytest.mark.parametrize("number", range(6))
def test_it(web, number):
    web.succeed("true")
    with open("{name}", "a") as file:
        file.write(f"{{os.getpid()}}\\n")
"""


@pytest.fixture
def two(project):
    """A project of two compositions, whose tests write down in which process they run."""
    for name in ("a", "b"):
        project.composition(name, roles=LONE, **{f"test_{name}": WHERE.format(name=f"{name}.pids")})
    return project


def processes(project, name: str) -> set[str]:
    return set((project.root / f"{name}.pids").read_text().split())


def test_the_tests_of_a_composition_go_to_one_worker(two):
    two.run("-n2").assert_outcomes(passed=12)
    assert len(processes(two, "a")) == len(processes(two, "b")) == 1


def test_two_compositions_run_side_by_side(two):
    two.run("-n2")
    assert processes(two, "a") != processes(two, "b")


def test_machines_are_made_once(two):
    two.watch()
    two.run("-n2")
    assert two.story().count("machine-started web") == 2


def test_machines_are_released_when_their_worker_goes_on(two):
    two.watch()
    two.run("-n1")
    first_end = two.story().index("machine-ended web")
    assert len([line for line in two.story()[:first_end] if "test-finished" in line]) < 7


@pytest.mark.parametrize("mode", ["load", "worksteal", "loadscope", "loadfile", "loadgroup"])
def test_they_stay_together_however_other_tests_are_distributed(two, mode):
    (two.root / "test_plain.py").write_text("def test_one(): pass\ndef test_two(): pass\n")
    two.run("-n2", f"--dist={mode}").assert_outcomes(passed=14)
    assert len(processes(two, "a")) == len(processes(two, "b")) == 1


def test_other_tests_go_wherever_there_is_room(project):
    project.composition("a", roles=LONE, test_a="def test_it(web): pass\n")
    (project.root / "test_plain.py").write_text(
        WHERE.replace("web, ", "")
        .format(name="plain.pids")
        .replace('    web.succeed("true")\n', "    import time; time.sleep(0.1)\n")
    )
    project.run("-n2").assert_outcomes(passed=7)
    assert len(processes(project, "plain")) == 2


def test_loadfile_keeps_other_files_together(project):
    project.composition("a", roles=LONE, test_a="def test_it(web): pass\n")
    (project.root / "test_plain.py").write_text(
        WHERE.replace("web, ", "")
        .format(name="plain.pids")
        .replace('    web.succeed("true")\n', "    import time; time.sleep(0.1)\n")
    )
    project.run("-n2", "--dist=loadfile").assert_outcomes(passed=7)
    assert len(processes(project, "plain")) == 1


def test_every_worker_has_machines_of_its_own_on_request(project):
    slow = WHERE.format(name="a.pids").replace('"true"', '"sleep 0.2"')
    project.composition("a", roles=LONE, test_a=slow)
    project.run("-n2", "--nxc-dist=test").assert_outcomes(passed=6)
    assert len(processes(project, "a")) == 2


def test_every_worker_can_run_everything(two):
    two.run("--dist=each", "--tx=2*popen").assert_outcomes(passed=24)
    assert len(processes(two, "a")) == 2


def test_a_run_without_compositions_is_left_alone(project):
    (project.root / "test_plain.py").write_text("def test_one(): pass\ndef test_two(): pass\n")
    result = project.run("-n2")
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("nxc:*")


def test_what_workers_found_differently_is_an_error(two):
    (two.root / "test_plain.py").write_text(
        "import os, pytest\n\n"
        "@pytest.mark.parametrize('pid', [os.getpid()])\ndef test_it(pid): pass\n"
    )
    result = two.run("-n2")
    result.stdout.fnmatch_lines(["*Different tests were collected*"])
    assert result.ret != pytest.ExitCode.OK


CRASH = """
import os
import pytest

@pytest.mark.parametrize("number", range(5))
def test_it(web, number):
    web.succeed("true")
    with open("a.pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    if number == 1:
        os._exit(1)
"""


def test_what_a_crashed_worker_had_not_begun_goes_to_another_as_a_whole(project):
    project.composition("a", roles=LONE, test_a=CRASH)
    result = project.run("-n2")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        ["worker 'gw*' crashed while running 'a/test_a.py::test_it[[]1[]]'"]
    )
    assert len(processes(project, "a")) == 2
    project.wait_reaped()


def test_the_first_failure_ends_the_run_where_that_is_wanted(project):
    test = WHERE.format(name="a.pids") + "    assert number != 2\n"
    project.composition("a", roles=LONE, test_a=test)
    result = project.run("-n2", "-x")
    result.assert_outcomes(passed=2, failed=1)


def test_the_header_tells_compositions_and_artifacts(two):
    two.run("-n2").stdout.fnmatch_lines(
        [
            "nxc: backend fake, compositions a, b, one worker for each",
            "nxc: artifacts nxc-artifacts/* (if a test fails)",
        ]
    )


def test_progress_is_shown_with_the_worker_that_makes_it(project):
    test = "def test_it(driver): driver.session.progress('image oar', 'unpacking')\n"
    project.composition("a", roles=LONE, test_a=test)
    result = project.run("-n1")
    assert re.search(r"\[gw0\] image oar: unpacking", str(result.stderr))


def test_workers_write_one_event_log(two):
    for name in ("a", "b"):
        (two.root / name / f"test_{name}.py").write_text("def test_it(web): assert False\n")
    two.run("-n2").assert_outcomes(failed=2)
    (log,) = (two.root / "nxc-artifacts").glob("2*/events.jsonl")
    events = list(read(log))
    runs = [event.run for event in events if event.type == "run-started"]
    assert len(set(runs)) == 2
    for run in runs:
        own = [event.type for event in read(log, run=run)]
        assert (own[0], own[-1]) == ("run-started", "run-finished")
        assert own.count("test-finished") == 1
    latest = two.root / "nxc-artifacts" / "latest"
    assert {path.name for path in latest.iterdir() if path.is_dir()} == {
        f"{name}-test_{name}.py-test_it" for name in ("a", "b")
    }


def test_a_green_run_leaves_nothing(two):
    two.run("-n2").assert_outcomes(passed=12)
    assert not (two.root / "nxc-artifacts").exists()


def test_the_report_of_a_failure_comes_whole(project):
    project.composition("a", roles=LONE, test_a="def test_it(web): web.succeed('exit 3')\n")
    result = project.run("-n2")
    result.stdout.fnmatch_lines(
        [
            "*CommandFailed: web: command `exit 3` failed (exit code 3)",
            "*nxc: last commands*",
            "*nxc: console of web*",
            "*nxc: artifacts*",
        ]
    )


def test_a_failure_of_the_test_bed_is_told_from_one_of_the_product(project):
    test = "def test_it(web):\n    web.start()\n    web.node.kill()\n    web.succeed('true')\n"
    project.composition("a", roles=LONE, test_a=test)
    project.run("-n2").assert_outcomes(errors=1)


def test_kept_machines_are_told(two):
    result = two.run("-n2", "--nxc-keep")
    result.stdout.fnmatch_lines(["=* nxc: machines kept =*", "web: *", "remove: nxc-test reap *"])
    for run in two.runs():
        two.shell(f"nxc-test reap {run.name}")


def test_what_a_worker_could_not_release_fails_the_run(project):
    project.composition("a", roles=LONE, test_a="def test_it(web): pass\n")
    project.conftest(
        "def pytest_nxc_session_start(session):\n"
        "    def broken(): raise RuntimeError('stuck')\n"
        "    session.on_close(broken)\n"
    )
    result = project.run("-n1")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["=* nxc: not released =*", "RuntimeError: stuck"])
