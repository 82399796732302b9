"""pytest run by pytest, on compositions whose machines are local shells."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import platformdirs
import pytest

IMAGES = platformdirs.user_cache_dir()
"""The user's own: `pytester` gives every test a home of its own, but images are for all."""

ROLES = """
[roles.server]
[roles.my-node]
count = 2
"""

WATCH = """
from nxc_testing import events

def pytest_nxc_session_start(session):
    def tell(event):
        match event:
            case events.TestStarted() | events.TestFinished():
                subject = event.test.split("::")[-1]
            case events.MachineStarted() | events.MachineEnded():
                subject = event.machine
            case _:
                return
        with open("story", "a") as story:
            story.write(f"{event.type} {subject}\\n")

    session.events.subscribe(tell)
"""


class Project:
    """A user's project: compositions and tests in a directory of their own.

    :ivar runtime: where runs keep what they have; empty after each.
    """

    def __init__(self, pytester: pytest.Pytester, runtime: Path):
        self._pytester = pytester
        self.root = pytester.path
        self.runtime = runtime

    def composition(
        self, name: str, script: str | None = None, *, roles: str = ROLES, **tests: str
    ) -> Path:
        """Write a composition.

        :param script: its testScript's text.
        :param tests: texts of modules beside it, by their names.
        """
        directory = self.root / name
        directory.mkdir(parents=True, exist_ok=True)
        table = '[test_script]\nfile = "test_script.py"\n' if script is not None else ""
        (directory / "composition.toml").write_text(
            f'[composition]\nimage = "none"\n{table}{roles}'
        )
        if script is not None:
            (directory / "test_script.py").write_text(script)
        for module, text in tests.items():
            (directory / f"{module}.py").write_text(text)
        return directory

    def conftest(self, text: str) -> None:
        """Write the root's conftest.py."""
        (self.root / "conftest.py").write_text(text)

    def watch(self) -> None:
        """Let runs write to the file `story` what happens, a line each."""
        self.conftest(WATCH)

    def story(self) -> list[str]:
        """What happened, as `kind subject`."""
        return (self.root / "story").read_text().splitlines()

    def run(self, *args: str, timeout: float = 60) -> pytest.RunResult:
        """Run pytest in a process of its own, in the project's root."""
        arguments = ("--nxc-backend=fake", "-p", "no:cacheprovider", *args)
        return self._pytester.runpytest_subprocess(*arguments, timeout=timeout)

    def runs(self) -> list[Path]:
        """The directories of runs that have not been released."""
        return list(self.runtime.glob("nxc_testing/runs/*"))

    def wait_reaped(self) -> None:
        """Wait until the reaper has taken away what a killed run had."""
        give_up = time.monotonic() + 10
        while self.runs() and time.monotonic() < give_up:
            time.sleep(0.05)

    def shell(self, command: str) -> str:
        """Run a command line as a user would who has nxc_testing installed."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.check_output(
            command, shell=True, text=True, cwd=self.root, env=os.environ | {"PATH": path}
        )


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    for name in [name for name in os.environ if name.startswith("NXC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", IMAGES)
    # Short, because paths of sockets may be no longer than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="nxc-", dir="/tmp") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        project = Project(pytester, Path(runtime))
        yield project
        assert project.runs() == [], "a run left its directory"
