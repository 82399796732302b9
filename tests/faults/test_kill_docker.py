"""Whatever happens to pytest, the engine and the host have nothing of the run left."""

# ruff: noqa: F403, F405

from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import *
from run_lab import RunLab

from nxc_testing.backends.docker import DockerBackend
from nxc_testing.backends.docker.removal import DISKS
from nxc_testing.backends.host import storage


@pytest.fixture
def lab(tmp_path: Path, runtime: Path) -> Iterator[RunLab]:
    """Runs on the engine of this host."""
    yield from lab_on(DockerBackend(), tmp_path, runtime)


def test_disks_are_where_these_tests_look() -> None:
    assert storage.directory_of("nxc-1", DISKS) == Path("/var/tmp/nxc-1-disks")
