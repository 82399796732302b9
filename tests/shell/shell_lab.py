"""Places where a shell can run, and a second way into each to see what is really there."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import docker

from nxc_testing.backends.base import Channel
from nxc_testing.backends.docker.node import DockerNode
from nxc_testing.composition.model import ShellMode
from nxc_testing.shell import Observer, Result, Shell, prepare

PATIENCE = 30.0
"""Seconds after which a test gives up on something that takes a moment on a busy host."""

LENGTHS = itertools.count(1_000_000 + secrets.randbelow(100_000_000))
"""Lengths for `sleep`, each given once, so that a test finds its own processes and no other's."""

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}


@dataclass(frozen=True)
class Place:
    """Somewhere with a bash.

    :ivar open_channel: as a backend's node has it.
    :ivar execute: runs a program there by other means than the shell that is tested.
    """

    name: str
    open_channel: Callable[[], Channel]
    execute: Callable[[Sequence[str]], tuple[int, bytes]]

    def shell(self, observer: Observer | None = None) -> Shell:
        return Shell(self.name, self.open_channel(), observer)

    def running(self, command: str) -> list[int]:
        """The processes with this command line; those that wait to be reaped have none."""
        return [int(pid) for pid in self.execute(["pgrep", "-fx", command])[1].split()]

    def waits_until_gone(self, command: str) -> bool:
        return wait_until(lambda: not self.running(command))

    def waits_until_running(self, command: str) -> bool:
        return wait_until(lambda: bool(self.running(command)))

    def kill(self, *pids: int, signal: str = "KILL") -> None:
        if pids:
            self.execute(["kill", f"-{signal}", *map(str, pids)])


def wait_until(look: Callable[[], bool], patience: float = PATIENCE) -> bool:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if look():
            return True
        time.sleep(0.02)
    return look()


def run(
    shell: Shell,
    command: str,
    timeout: float | None = PATIENCE,
    *,
    mode: ShellMode = ShellMode.STRICT,
    stdin: Iterator[bytes] | None = None,
) -> Result:
    return shell.run(prepare(command, mode), timeout, stdin=stdin)


def local_channel() -> Channel:
    process = subprocess.Popen(
        ["bash", "--noprofile", "--norc"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    stdin, stdout = process.stdin, process.stdout

    def close() -> None:
        for pipe in (stdin, stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    _children.append(process)
    return Channel(stdout.fileno(), stdin.fileno(), close)


_children: list[subprocess.Popen[bytes]] = []


def reap_children(patience: float = PATIENCE) -> list[int]:
    """Those of our channels' processes that do not end."""
    wait_until(lambda: all(child.poll() is not None for child in _children), patience)
    left = [child.pid for child in _children if child.poll() is None]
    _children.clear()
    return left


def local_place() -> Place:
    def execute(argv: Sequence[str]) -> tuple[int, bytes]:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, env=ENVIRONMENT, check=False
        )
        return done.returncode, done.stdout

    return Place("local", local_channel, execute)


def docker_place(node: DockerNode) -> Place:
    client = docker.APIClient()

    def execute(argv: Sequence[str]) -> tuple[int, bytes]:
        made = client.exec_create(node.container, list(argv), stderr=False, user="root")
        output = client.exec_start(made["Id"])
        return client.exec_inspect(made["Id"])["ExitCode"], output

    return Place("docker", node.open_channel, execute)


@dataclass(frozen=True)
class Expected:
    """What a real bash made of a command."""

    status: int
    stdout: bytes


SETUP = {
    ShellMode.STRICT: "export USER=root HOME=/root DISPLAY=:0.0; . /etc/profile; export PAGER=\n"
    "cd /tmp\n",
    ShellMode.NXC: "cd ~\n",
}
BASH = {ShellMode.STRICT: "bash -c", ShellMode.NXC: "bash -l -c"}


def references(place: Place, commands: Sequence[str], mode: ShellMode) -> dict[str, Expected]:
    """What a real `bash -c` makes of each command, in the same place."""
    scratch = f"/tmp/nxc-reference.{os.getpid()}"
    script = f"{SETUP[mode]}set -m; d={scratch}; mkdir $d; mkfifo $d/o $d/e\n"
    strict = "set -euo pipefail; " if mode is ShellMode.STRICT else ""
    for command in commands:
        # Each in a process group of its own, because some kill theirs.
        script += "cat $d/e >/dev/null & cat $d/o >$d/out & reader=$!\n"
        bash = f"{BASH[mode]} {shlex.quote(strict + command)}"
        script += f"{bash} </dev/null >$d/o 2>$d/e & wait $!; status=$?; wait $reader\n"
        script += 'printf "%s %s\\n" $status "$(base64 -w0 $d/out)"\n'
    script += "rm -r $d\n"
    # Engines take UTF-8 only.
    encoded = base64.b64encode(script.encode(errors="surrogateescape")).decode()
    decoding = f'eval "$(base64 -d <<<{encoded})"'
    status, printed = place.execute(["bash", "--noprofile", "--norc", "-c", decoding])
    lines = printed.decode().splitlines()
    assert status == 0
    assert len(lines) == len(commands)
    found = {}
    for command, line in zip(commands, lines, strict=True):
        code, _, data = line.partition(" ")
        found[command] = Expected(int(code), base64.b64decode(data))
    return found
