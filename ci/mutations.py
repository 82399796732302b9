#!/usr/bin/env python3
"""Break what serves each promise, one at a time, and see that a test goes red.

usage: ci/mutations.py [WORD...]     only those whose promise, file or tests have one of the WORDs

The breakages are in tests/mutations.toml. Each is made in a copy of this checkout, never here. The
exit status is 1 if a test stayed green, or a text to be replaced is not there any more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutations.toml"
TESTS_FAILED = 1
TIMEOUT = 600


def main(words: list[str]) -> int:
    """Judge the chosen mutations; the exit status."""
    if words and words[0].startswith("-"):
        sys.stdout.write(f"{__doc__}\n")
        return 0
    mutations = tomllib.loads(LIST.read_text())["mutation"]
    chosen = [one for one in mutations if not words or any(w in str(one) for w in words)]
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="nxc-mutations-") as directory:
        copy = Path(directory, "checkout")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "nxc-artifacts"))
        for number, one in enumerate(chosen, 1):
            verdict = judge(copy, one)
            survivors += verdict != "red"
            sys.stdout.write(f"[{number}/{len(chosen)}] {verdict:8} {one['promise']}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - survivors} of {len(chosen)} went red\n")
    return survivors > 0


def judge(copy: Path, mutation: dict[str, str]) -> str:
    """What the tests say of one mutation: "red" is what is wanted."""
    file = copy / mutation["file"]
    sound = file.read_text()
    if sound.count(mutation["old"]) != 1:
        return "STALE"
    file.write_text(sound.replace(mutation["old"], mutation["new"]))
    places = [str(copy), str(copy / "plugins")]
    pytest = [sys.executable, "-m", "pytest", "-x", "--timeout=120", "-p", "no:cacheprovider"]
    tests = mutation["tests"].split(" -k ")
    try:
        status = subprocess.run(
            [*pytest, *tests[0].split(), *(["-k", tests[1]] if tests[1:] else [])],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return "HANGS"
    finally:
        file.write_text(sound)
    return {TESTS_FAILED: "red", 0: "GREEN"}.get(status, f"EXIT {status}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
