"""The plugin is loaded in every run of its users: it must not be felt where it is not used."""

import os
import subprocess
import sys

pytest_plugins = ["pytester"]

HEAVY = ("docker", "psutil", "yaml", "pexpect", "filelock", "platformdirs", "requests", "asyncio")


def test_importing_the_plugin_loads_nothing_heavy():
    code = "import sys, pytest_nxc.plugin; print(*sys.modules)"
    plain = "import sys, pytest; print(*sys.modules)"
    ours, pytests = (
        set(subprocess.check_output([sys.executable, "-c", text], text=True).split())
        for text in (code, plain)
    )
    assert not (ours - pytests) & set(HEAVY)


def test_a_run_without_compositions_loads_nothing_heavy(project, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins may load anything
    (project.root / "test_it.py").write_text(f"""
import sys

def test_it():
    assert [name for name in {HEAVY!r} if name in sys.modules] == []
""")
    project.run("-p", "pytest_nxc.plugin").assert_outcomes(passed=1)


def test_a_run_without_compositions_makes_nothing(project):
    (project.root / "test_it.py").write_text("def test_it(): pass\n")
    project.run().assert_outcomes(passed=1)
    assert os.listdir(project.runtime) == []


def test_a_test_without_machines_starts_no_session(project):
    project.composition("oar", test_it="def test_it(): pass\n")
    project.run().assert_outcomes(passed=1)
    assert os.listdir(project.runtime) == []


def test_pytest_runs_without_the_plugin(project, pytester):
    (project.root / "test_it.py").write_text("def test_it(): pass\n")
    pytester.runpytest_subprocess("-p", "no:nxc").assert_outcomes(passed=1)


def test_the_plugin_works_without_capture_and_without_terminal_reporter(project):
    project.composition("oar", "server.start()")
    assert project.run("-p", "no:terminal", "-s").ret == 0
