"""A command in a machine, and 10 MiB of its output: this project against what users have.

All ways go to the same machine, of Docker, systemd-nspawn or QEMU, in turn, round by round; ratios
are of medians of one run.
"""

from __future__ import annotations

import argparse
import base64
import shlex
import socket
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


END = b"\0end\n"


def bare(command: str) -> bytes:
    """What makes a bash run a command in a subshell and mark its end, with no guarantee at all."""
    return f"({command}); printf '\\0end\\n'\n".encode()


class BareShell:
    """A bash kept open over a pipe.

    :param enter: what runs a program in the container.
    """

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
        self.process.stdin.write(bare(command))
        output = bytearray()
        while not output.endswith(END):
            output += self.process.stdout.read(1 << 18)
        return bytes(output)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Line:
    """A connection to a shell in a virtual machine, by the socket of one of its serial ports."""

    def __init__(self, connection: socket.socket):
        connection.settimeout(60)
        self.connection = connection

    def until(self, end: bytes) -> bytes:
        """What comes up to an end, with it."""
        output = bytearray()
        while not output.endswith(end):
            output += self.connection.recv(1 << 18)
        return bytes(output)

    def subshell(self, command: str) -> bytes:
        """Run a command as `BareShell` does."""
        self.connection.sendall(bare(command))
        return self.until(END)

    def upstream(self, command: str) -> bytes:
        """Run a command as the NixOS test driver does: its output in base64, then its status."""
        quoted = shlex.quote(f"set -euo pipefail; {command}")
        self.connection.sendall(f"timeout 900 bash -c {quoted} | (base64 -w 0; echo)\n".encode())
        output = base64.b64decode(self.until(b"\n"))
        self.connection.sendall(b"echo ${PIPESTATUS[0]}\n")
        assert self.until(b"\n") == b"0\n"
        return output


def vm_ways(stack: ExitStack, box: Machine, directory: Path) -> dict[str, tuple[Way, int]]:
    """A spare port of the machine, and a virtual console as NixOS' machines have."""
    spare = stack.enter_context(socket.socket(socket.AF_UNIX))
    spare.connect(str(directory / "port4"))
    subshell = Line(spare)
    subshell.until(b"\n")
    spare.sendall(b"exec bash --norc 2>/dev/null\n")
    path = str(directory / "hvc0")
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen()
    where = {"type": "unix", "data": {"path": path}}
    backend = {"type": "socket", "data": {"addr": where, "server": False}}
    box.qmp_client.send("chardev-add", {"id": "hvc0", "backend": backend})
    console = {"driver": "virtconsole", "bus": "ports.0", "nr": 0, "chardev": "hvc0"}
    box.qmp_client.send("device_add", console)
    hvc0 = stack.enter_context(listener.accept()[0])
    box.wait_for_file("/dev/hvc0")
    backdoor = "exec </dev/hvc0 >/dev/hvc0 2>/dev/null; stty raw -echo; exec bash --norc /dev/hvc0"
    box.succeed(f"systemd-run --no-block sh -c {shlex.quote(backdoor)}; sleep 2")
    return {
        "bare subshell": (subshell.subshell, 50),
        "NixOS' protocol on hvc0": (Line(hvc0).upstream, 10),
    }


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
        directory = Path("/var/tmp", f"{name.removesuffix('-box')}-{backend}")
        if backend == "qemu":
            yield found | vm_ways(stack, box, directory / "1")
            return
        if backend == "docker":
            enter: tuple[str, ...] = ("docker", "exec", "-i", name)
            found |= docker_ways(stack, name)
        else:
            spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
            enter = (
                "nsenter",
                "--target",
                (directory / "machines/box/leader").read_text().strip(),
                *spaces,
            )
            found["nsenter"] = (lambda c: _run(*enter, "bash", "-c", c), 20)
        shell = BareShell(*enter)
        stack.callback(shell.close)
        found["bare subshell"] = (shell, 100)
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
    parser.add_argument("--backend", choices=["docker", "nspawn", "qemu"], default="docker")
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
