"""The linters, as tests: what they find fails the run like anything else."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHEBANGS = (b"#!/usr/bin/env bash", b"#!/bin/sh", b"#!/bin/bash")
SCRIPTS = [
    path.relative_to(ROOT).as_posix()
    for folder in ("ci", ".ci", "bench", "compositions", "nxc_testing")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.read_bytes().startswith(SHEBANGS)
]


def check(*command: str) -> None:
    """Run a linter; a missing one fails in CI and skips elsewhere."""
    tool = command[0]
    if shutil.which(tool) is None:
        reason = f"{tool} is not installed: `pip install .[dev]`, or the Debian package {tool}"
        if os.environ.get("NXC_CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    check("ruff", "check", ".")


def test_the_code_is_formatted() -> None:
    check("ruff", "format", "--check", ".")


def test_mypy_finds_nothing() -> None:
    check("mypy")


def test_shellcheck_finds_nothing() -> None:
    assert SCRIPTS
    check("shellcheck", "-x", *SCRIPTS)


def test_the_agent_compiles_without_a_warning() -> None:
    agent = ROOT / "nxc_testing/shell/agent.pl"
    done = subprocess.run(["perl", "-wc", agent], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("syntax OK")
    assert done.stderr.count("\n") == 1


LIBRARY = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("nxc_testing/**/*.py"))


@pytest.mark.parametrize("path", LIBRARY)
def test_library_files_stay_small(path: str) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= 600


MUTATIONS = tomllib.loads((ROOT / "tests/mutations.toml").read_text())["mutation"]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation["promise"])
def test_a_mutation_is_of_code_that_is_there(mutation: dict[str, str]) -> None:
    assert (ROOT / mutation["file"]).read_text().count(mutation["old"]) == 1
