import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytest_plugins = ["pytester"]

LONE = "[roles.{}]\n"
USE = "def test_{name}({machine}): assert {machine}.succeed('echo hi') == 'hi\\n'\n"


def two_compositions(project) -> None:
    """Compositions `a` with machine `one` and `b` with machine `two`, two tests each."""
    for name, machine in (("a", "one"), ("b", "two")):
        tests = "".join(USE.format(name=f"{name}{i}", machine=machine) for i in (1, 2))
        project.composition(name, roles=LONE.format(machine), **{f"test_{name}": tests})
    project.watch()


def is_running(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_machines_start_once_and_go_after_the_last_test_that_needs_them(project):
    two_compositions(project)
    project.run().assert_outcomes(passed=4)
    assert project.story() == [
        "test-started test_a1",
        "machine-started one",
        "test-finished test_a1",
        "test-started test_a2",
        "machine-ended one",
        "test-finished test_a2",
        "test-started test_b1",
        "machine-started two",
        "test-finished test_b1",
        "test-started test_b2",
        "machine-ended two",
        "test-finished test_b2",
    ]


def test_machines_start_once_in_any_order(project):
    two_compositions(project)
    order = """
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.name[-1])
"""
    conftest = project.root / "conftest.py"
    conftest.write_text(conftest.read_text() + order)
    project.run().assert_outcomes(passed=4)
    events = [line for line in project.story() if line.startswith(("test-started", "machine"))]
    assert events == [
        "test-started test_a1",
        "machine-started one",
        "test-started test_b1",
        "machine-started two",
        "test-started test_a2",
        "machine-ended one",
        "test-started test_b2",
        "machine-ended two",
    ]


def test_deselected_tests_hold_no_machines(project):
    two_compositions(project)
    project.run("-k", "a1 or b").assert_outcomes(passed=3, deselected=1)
    story = project.story()
    assert story.index("machine-ended one") < story.index("test-started test_b1")


def test_tests_that_need_no_machines_hold_none(project):
    later = USE.format(name="first", machine="one") + "def test_last(composition): pass\n"
    project.composition("a", roles=LONE.format("one"), test_a=later)
    project.watch()
    project.run().assert_outcomes(passed=2)
    story = project.story()
    assert story.index("machine-ended one") < story.index("test-started test_last")


def test_tests_that_need_no_machines_start_none(project):
    project.composition("a", test_a="def test_it(composition): assert composition.roles\n")
    project.watch()
    project.run().assert_outcomes(passed=1)
    assert not (project.root / "story").exists()


def test_the_first_failure_of_an_exitfirst_run_releases_in_its_teardown(project):
    two_compositions(project)
    (project.root / "a/test_a.py").write_text("def test_a(one):\n    one.start()\n    assert 0\n")
    project.run("-x").assert_outcomes(failed=1)
    assert project.story()[-2:] == ["machine-ended one", "test-finished test_a"]


@pytest.mark.parametrize("name", ["mounted", "one"])
def test_fixtures_of_the_user_find_machines_alive_in_their_teardown(project, name):
    two_compositions(project)
    fixture = f"""
import pytest

@pytest.fixture(scope="session", autouse=True)
def {name}(one):
    yield one
    assert one.succeed("echo unmounted") == "unmounted\\n"
"""
    (project.root / "a/conftest.py").write_text(fixture)
    project.run().assert_outcomes(passed=4)
    assert project.story().count("machine-started one") == 1


def test_a_failed_deployment_is_not_tried_again(project, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    project.composition(
        "a",
        roles=LONE.format("one"),
        test_a="".join(USE.format(name=i, machine="one") for i in range(3)),
    )
    result = project.run("--nxc-backend=docker")
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at setup of test_0*",
            "BackendUnavailable: *",
            "*ERROR at setup of test_1*",
            "DeploymentError: composition a failed before: *",
            "*ERROR at setup of test_2*",
            "DeploymentError: composition a failed before: *",
        ]
    )
    result.stdout.no_fnmatch_line("*.py:[0-9]*")


def test_a_test_that_is_to_be_skipped_is_skipped_after_a_failed_deployment_too(
    project, monkeypatch
):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    tests = "import pytest\ndef test_a(one): pass\n@pytest.mark.skip\ndef test_b(one): pass\n"
    project.composition("a", roles=LONE.format("one"), test_a=tests)
    project.run("--nxc-backend=docker").assert_outcomes(errors=1, skipped=1)


def test_a_failed_release_is_an_error_of_the_last_test(project):
    two_compositions(project)
    stubborn_backend(project.root)
    result = project.run("--nxc-backend=stubborn", "-v")
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_a2*", "DeploymentError: it will not go away"]
    )


def test_a_failure_at_the_very_end_is_not_green(project):
    project.composition("a", roles=LONE.format("one"), test_a=USE.format(name="a", machine="one"))
    project.conftest("""
def fail():
    raise OSError("a lock could not be given back")

def pytest_nxc_session_start(session):
    session.on_close(fail)
""")
    result = project.run()
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["*nxc: not released*", "OSError: a lock could not be given back"])


def stubborn_backend(root: Path) -> None:
    """Install a backend of a third party, whose machines cannot be released without an error."""
    (root / "stubborn.py").write_text(
        """
from nxc_testing.backends.fake import FakeBackend, FakeDeployment
from nxc_testing.errors import DeploymentError

class StubbornDeployment(FakeDeployment):
    def close(self):
        super().close()
        raise DeploymentError("it will not go away")

class StubbornBackend(FakeBackend):
    name = "stubborn"

    def deploy(self, plan, session):
        return StubbornDeployment(super().deploy(plan, session).nodes)
"""
    )
    metadata = root / "stubborn-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stubborn\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[nxc_testing.backends]\nstubborn = stubborn:StubbornBackend\n"
    )


def test_nothing_that_runs_in_a_machine_outlives_the_run(project):
    pid_file = project.root / "pid"
    test = f"def test_it(one): one.succeed('sleep 1000 >&- 2>&- & echo $! > {pid_file}')\n"
    project.composition("a", roles=LONE.format("one"), test_a=test)
    project.run().assert_outcomes(passed=1)
    assert not is_running(int(pid_file.read_text()))


def test_an_interrupt_releases(project):
    test = "def test_it(one):\n    one.start()\n    raise KeyboardInterrupt\n"
    project.composition("a", roles=LONE.format("one"), test_a=test)
    project.watch()
    assert project.run().ret == pytest.ExitCode.INTERRUPTED
    assert "machine-ended one" in project.story()


def test_sigterm_ends_a_run_in_order(project):
    test = """
import os, signal, time

def test_it(one):
    one.start()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(50)
"""
    project.composition("a", roles=LONE.format("one"), test_a=test)
    project.watch()
    result = project.run()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert result.duration < 30
    assert "machine-ended one" in project.story()
    result.stdout.fnmatch_lines(["*Terminated: SIGTERM*"])


def test_keep_leaves_the_machines_and_says_how_to_reach_and_remove_them(project):
    pid_file = project.root / "pid"
    test = f"def test_it(one): one.succeed('sleep 1000 >&- 2>&- & echo $! > {pid_file}')\n"
    project.composition("a", roles=LONE.format("one"), test_a=test)
    result = project.run("--nxc-keep")
    process = psutil.Process(int(pid_file.read_text()))
    assert process.name() == "sleep"
    result.stdout.fnmatch_lines(["*nxc: machines kept*", "one: *", "remove: nxc-test reap nxc-*"])
    remove = next(line for line in result.outlines if line.startswith("remove: nxc-test "))
    nxc_test = Path(sys.executable).with_name("nxc-test")
    subprocess.run([nxc_test, *remove.split()[2:]], check=True, capture_output=True)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_the_debugger_opens_at_the_failed_line_with_the_machines_alive(project, pytester):
    script = "server.copy_from_host('/nonexistent', '/tmp/copy')\n"
    project.composition("a", script, roles="[roles.server]\n")
    child = pytester.spawn_pytest("--nxc-backend=fake -p no:cacheprovider --pdb", expect_timeout=30)
    child.expect(r"a/test_script.py\(1\)<module>")
    child.expect(r"\(Pdb\)")
    child.sendline("server.succeed('echo ali''ve')")
    child.expect("alive")
    child.sendline("q")
    child.expect_exact("1 failed")
    child.wait()
