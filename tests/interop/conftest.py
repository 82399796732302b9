"""The doors besides pytest: a prompt, and a job of GitLab's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from prompt_lab import Prompt, start
from run_lab import RunLab, run_lab

COMPOSITION = """
[composition]
image = "none"
[test_script]
file = "test_script.py"
[roles.server]
[roles.node]
count = 2
"""

NO_PTPYTHON = "import sys\nsys.modules['ptpython'] = None\n"


@pytest.fixture
def runtime() -> Iterator[Path]:
    # Short, because paths of sockets may be no longer than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="nxc-", dir="/tmp", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture
def lab(tmp_path: Path, runtime: Path, request: pytest.FixtureRequest) -> Iterator[RunLab]:
    """A project with a composition `c` for the fake backend, and what runs in it."""
    directory = tmp_path / "c"
    directory.mkdir()
    (directory / "composition.toml").write_text(COMPOSITION)
    (directory / "test_script.py").write_text("start_all()\n")
    with run_lab(tmp_path, runtime, "fake") as lab:
        yield lab
    for run in lab.runs:
        if isinstance(run, Prompt):
            run.hang_up()


@pytest.fixture
def plain(lab: RunLab) -> Callable[..., Prompt]:
    """Starts prompts where ptpython is not installed."""
    site = lab.root / "site"
    site.mkdir()
    # What Python does where a module is None: as if it were not there.
    (site / "sitecustomize.py").write_text(NO_PTPYTHON)
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return partial(start, lab, TERM="vt100", PYTHONPATH=path)
