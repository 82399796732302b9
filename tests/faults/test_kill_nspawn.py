"""Whatever happens to pytest, this host has nothing of the run's containers left."""

# ruff: noqa: F403, F405

from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import *
from run_lab import RunLab

from nxc_testing.backends.host import storage, switch
from nxc_testing.backends.nspawn import NspawnBackend
from nxc_testing.backends.nspawn.removal import KIND


@pytest.fixture
def lab(tmp_path: Path, runtime: Path) -> Iterator[RunLab]:
    """Runs on this host itself."""
    yield from lab_on(NspawnBackend(), tmp_path, runtime)


def test_files_and_devices_are_where_these_tests_look() -> None:
    assert storage.directory_of("nxc-1", KIND) == Path("/var/tmp/nxc-1-nspawn")
    assert switch.uplinks_of("nxc-1a2b3c4d").startswith("nx1a2b3c4d")
