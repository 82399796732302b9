"""A command in a container, and 10 MiB of its output: this project against what users have.

All ways go to the same container, of Docker or systemd-nspawn, in turn, round by round; ratios are
of medians of one run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import docker

from nxc_testing.composition import Composition, Network, Role
from nxc_testing.launch import Settings, open_driver
from nxc_testing.machine import Machine
from nxc_testing.session import Session

TEXT = "/tmp/ten-mebibytes"
MAKE_TEXT = f"head -c {10 << 20} < <(yes 'sixteen bytes..') >{TEXT}"
Way = Callable[[str], object]


class BareShell:
    """A bash kept open over a pipe: a subshell a command, and no guarantee at all.

    :param enter: what runs a program in the container.
    """

    END = b"\0end\n"

    def __init__(self, *enter: str):
        self.process = subprocess.Popen(
            [*enter, "bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def __call__(self, command: str) -> bytes:
        """Run a command; what it prints must not hold the end mark."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"({command}); printf '\\0end\\n'\n".encode())
        output = bytearray()
        while not output.endswith(self.END):
            output += self.process.stdout.read(1 << 18)
        return bytes(output)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


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
                box = driver.machine("box")
                box.succeed(MAKE_TEXT)
                yield box, f"{session.id}-box"
        finally:
            session.close()


@contextmanager
def ways(backend: str) -> Iterator[dict[str, tuple[Way, int]]]:
    """Every way to run a command, with how many samples it gets in a round."""
    with ExitStack() as stack:
        box, name = stack.enter_context(machine(backend))
        found: dict[str, tuple[Way, int]] = {"nxc_testing": (box.succeed, 100)}
        if backend == "docker":
            enter: tuple[str, ...] = ("docker", "exec", "-i", name)
            found |= docker_ways(stack, name)
        else:
            directory = Path("/var/tmp", name.removesuffix("-box") + "-nspawn", "machines/box")
            spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
            enter = ("nsenter", "--target", (directory / "leader").read_text().strip(), *spaces)
            found["nsenter"] = (lambda c: _run(*enter, "bash", "-c", c), 20)
        bare = BareShell(*enter)
        stack.callback(bare.close)
        found["bare subshell"] = (bare, 100)
        yield found


def docker_ways(stack: ExitStack, name: str) -> dict[str, tuple[Way, int]]:
    """Those that need an engine."""
    container = docker.from_env().containers.get(name)
    found: dict[str, tuple[Way, int]] = {
        "docker-py exec_run": (lambda c: container.exec_run(["bash", "-c", c]), 10),
        "docker exec": (lambda c: _run("docker", "exec", name, "bash", "-c", c), 5),
    }
    if _has_compose():
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        prefix = stack.enter_context(compose_twin(Path(folder) / "compose.yml", container))
        found["docker compose exec"] = (
            lambda c: _run(*prefix, "exec", "-T", "box", "bash", "-c", c),
            5,
        )
    else:
        print("no `docker compose`: left out (see bench/README.md)\n")
    return found


@contextmanager
def compose_twin(
    file: Path, container: docker.models.containers.Container
) -> Iterator[tuple[str, ...]]:
    """A container of the same image that compose manages; it manages none but its own."""
    file.write_text(
        f"services:\n  box:\n    image: {container.image.id}\n    command: [sleep, infinity]\n"
    )
    prefix = ("docker", "compose", "-f", str(file), "-p", f"{container.name}-compose")
    _run(*prefix, "up", "-d")
    try:
        _run(*prefix, "exec", "-T", "box", "bash", "-c", MAKE_TEXT)
        yield prefix
    finally:
        _run(*prefix, "down", "-t", "0")


def _run(*command: str) -> bytes:
    return subprocess.run(command, check=True, capture_output=True).stdout


def _has_compose() -> bool:
    done = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return done.returncode == 0


def measure(way: Way, command: str, count: int) -> list[float]:
    """Seconds of each run."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        way(command)
        times.append(time.perf_counter() - began)
    return times


def table(title: str, times: dict[str, list[float]], unit: str, scale: float) -> None:
    """Print medians and how many times each is slower than ours."""
    ours = statistics.median(times["nxc_testing"])
    print(f"{title:<24}{'median':>10}{'p95':>10}   times ours")
    for name, values in times.items():
        median = statistics.median(values)
        p95 = sorted(values)[int(len(values) * 0.95)]
        print(
            f"{name:<24}{median * scale:>8.2f}{unit}{p95 * scale:>8.2f}{unit}"
            f"   {median / ours:8.2f}"
        )
    print()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", choices=["docker", "nspawn"], default="docker")
    options = parser.parse_args()
    rounds = options.rounds
    with ways(options.backend) as found:
        latency: dict[str, list[float]] = {name: [] for name in found}
        output: dict[str, list[float]] = {name: [] for name in found}
        for way, _ in found.values():
            measure(way, "true", 2)
        for _ in range(rounds):
            for name, (way, count) in found.items():
                latency[name] += measure(way, "true", count)
                output[name] += measure(way, f"cat {TEXT}", 2)
        table("`true`", latency, "ms", 1e3)
        table("10 MiB of text", output, "ms", 1e3)


if __name__ == "__main__":
    main()
