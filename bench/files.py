"""A large file into a machine and out of it: this project against what users have.

All ways go to the same machine, in turn, round by round; the figures are medians of one run, and
the ratios are against the NixOS test driver's way: a copy into a directory that is shared with the
machine, and `cp` there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nxc_testing import files
from nxc_testing.composition import Composition, Network, Role
from nxc_testing.launch import Settings, open_driver
from nxc_testing.machine import Machine
from nxc_testing.session import Session

PEER = "shared directory and cp"
TARGET = "/var/tmp/large"
Way = Callable[[Path], object]


@contextmanager
def machine(backend: str) -> Iterator[tuple[Machine, str]]:
    """One machine of the built-in recipe, and its container's name."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "image.toml"
        source.write_text('[image]\nname = "bench"\nextends = "base"\n')
        role = Role("box", source, networks=("lan",))
        composition = Composition("bench", source.parent, source, (role,), (Network("lan"),))
        session = Session()
        try:
            with open_driver(composition, Settings(backend=backend), session) as driver:
                yield driver.machine("box"), f"{session.id}-box"
        finally:
            session.close()


def ways(box: Machine, name: str) -> dict[str, tuple[Way, Way]]:
    """Every way into the machine, with the one out of it."""

    def copy_in(source: Path) -> None:
        shutil.copy(source, box.shared_dir / "large")
        box.succeed(f"cp /tmp/shared/large {TARGET}")

    def copy_out(target: Path) -> None:
        box.succeed(f"cp {TARGET} /tmp/shared/large")
        shutil.copy(box.shared_dir / "large", target)

    def stream_in(source: Path) -> None:
        with source.open("rb") as file:
            box.transfer(f"cat >{TARGET}", stdin=iter(lambda: file.read(files.CHUNK), b""))

    def stream_out(target: Path) -> None:
        with target.open("wb") as file:
            box.transfer(f"cat {TARGET}", sink=file.write)

    found: dict[str, tuple[Way, Way]] = {
        PEER: (copy_in, copy_out),
        "copy_from_host, copy_from_machine": (
            lambda source: files.push(box, source, TARGET),
            lambda target: files.pull(box, TARGET, target),
        ),
        "the shell's channel, and no more": (stream_in, stream_out),
    }
    if box.backend == "docker":
        found["docker cp"] = (
            lambda source: _run("docker", "cp", str(source), f"{name}:{TARGET}"),
            lambda target: _run("docker", "cp", f"{name}:{TARGET}", str(target)),
        )
    return found


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def measure(action: Way, path: Path) -> float:
    """How long it takes, in seconds."""
    began = time.monotonic()
    action(path)
    return time.monotonic() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="docker", choices=["docker", "nspawn", "qemu"])
    parser.add_argument("--size", type=int, default=128, help="in MiB")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    times: dict[str, tuple[list[float], list[float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        source, target = folder / "source", folder / "target"
        source.write_bytes(os.urandom(options.size << 20))
        box, name = stack.enter_context(machine(options.backend))
        box.start()
        for _ in range(options.rounds):
            for way, (into, out) in ways(box, name).items():
                box.succeed(f"rm -f {TARGET} /tmp/shared/large; sync")
                target.unlink(missing_ok=True)
                there, back = times.setdefault(way, ([], []))
                there.append(measure(into, source))
                back.append(measure(out, target))
                _run("cmp", str(source), str(target))
    print(f"{options.backend}, {options.size} MiB, medians of {options.rounds}; ratio to: {PEER}")
    peers = [statistics.median(one) for one in times[PEER]]
    for way, both in times.items():
        cells = []
        for taken, peer in zip(both, peers, strict=True):
            median = statistics.median(taken)
            cells.append(f"{options.size / median:7.0f} MiB/s ({peer / median:5.2f}x)")
        print(f"{way:35} in {cells[0]}  out {cells[1]}")


if __name__ == "__main__":
    main()
