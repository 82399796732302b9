"""Runs that are killed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("kills")

from run_lab import RunLab, run_lab  # noqa: E402


@pytest.fixture
def runtime() -> Iterator[Path]:
    # Short, because paths of sockets may be no longer than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="nxc-", dir="/tmp", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture
def lab(tmp_path: Path, runtime: Path) -> Iterator[RunLab]:
    """Runs on the fake backend."""
    with run_lab(tmp_path, runtime, "fake") as lab:
        yield lab
