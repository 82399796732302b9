"""Deploys compositions of containers to this host, and looks at them from inside and outside."""

from __future__ import annotations

import os
import re
import shlex
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nxc_testing.backends.base import Backend
from nxc_testing.backends.docker.deployment import DockerDeployment
from nxc_testing.backends.docker.node import DockerNode
from nxc_testing.backends.nspawn.deployment import NspawnDeployment
from nxc_testing.backends.nspawn.node import NspawnNode
from nxc_testing.composition import Composition, Network, Plan, Role, Volume, make_plan
from nxc_testing.errors import MachineDied
from nxc_testing.images import Image
from nxc_testing.session import Session

Node = DockerNode | NspawnNode
Deployment = DockerDeployment | NspawnDeployment

LAN = (Network("lan"),)
BOOTED = "until systemctl is-system-running --wait 2>/dev/null; do sleep 0.05; done"
SERVER = """
my $socket = IO::Socket::INET->new(LocalPort => shift, Listen => 9, ReuseAddr => 1) or die;
while (my $caller = $socket->accept) { print $caller "@ARGV\\n"; close $caller }
"""


@dataclass
class Lab:
    """Deploys compositions, and takes all of it away at the end."""

    backend: Backend
    root: Path
    image: Image | str
    sessions: list[Session] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)

    def session(self) -> Session:
        session = Session(root=self.root)
        self.sessions.append(session)
        return session

    def role(self, name: str, **options: Any) -> Role:  # noqa: ANN401
        return Role(name, self.image, **{"networks": ("lan",), **options})

    def plan(
        self,
        *roles: Role,
        networks: tuple[Network, ...] = LAN,
        volumes: tuple[Volume, ...] = (),
        secrets: Mapping[str, str | None] | None = None,
    ) -> Plan:
        composition = Composition(
            name="lab",
            root=self.root,
            source=self.root / "composition.toml",
            roles=roles,
            networks=networks,
            volumes=volumes,
            secrets=secrets or {},
        )
        return make_plan(composition, {role.name: role.image for role in roles})

    def deploy(self, *roles: Role, session: Session | None = None, **rest: Any) -> Deployment:  # noqa: ANN401
        plan = self.plan(*roles, **rest)
        deployment = self.backend.deploy(plan, session or self.session())
        self.deployments.append(deployment)
        return deployment

    def machine(self, **options: Any) -> Node:  # noqa: ANN401
        (node,) = self.deploy(self.role("one", **options)).nodes
        return node

    def close(self) -> None:
        for deployment in self.deployments:
            deployment.close()
        for session in self.sessions:
            session.close()


def run(node: Node, command: str, timeout: float = 60) -> tuple[int, str]:
    """Run a command in a machine by a channel of its own.

    :return: its status, and what it printed on both outputs.
    """
    script = f'timeout {timeout} bash -c {shlex.quote(command)} 2>&1; echo "status $?"; exit\n'
    channel = node.open_channel()
    try:
        os.set_blocking(channel.reader, True)
        os.write(channel.writer, script.encode())
        output = b""
        while data := os.read(channel.reader, 1 << 16):
            output += channel.decoder.feed(data) if channel.decoder else data
    finally:
        channel.close()
    text = output.decode(errors="replace")
    # Behind the status, bash may still say by what signal `timeout` ended.
    status = re.search(r"(.*)status (\d+)\n", text, re.DOTALL)
    assert status, f"{node.name}: {command!r}: the shell ended: {text}"
    return int(status[2]), status[1]


def succeed(node: Node, command: str, timeout: float = 60) -> str:
    status, output = run(node, command, timeout)
    assert status == 0, f"{node.name}: {command!r}: status {status}: {output}"
    return output.rstrip("\n")


def boot(*nodes: Node) -> None:
    for node in nodes:
        node.start()
    for node in nodes:
        succeed(node, BOOTED)


def until(what: Callable[[], object], timeout: float = 30) -> None:
    give_up = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.02)


def serve(node: Node, port: int, text: str) -> None:
    """Let a machine answer every TCP call on a port with a line."""
    server = f"perl -MIO::Socket::INET -e {shlex.quote(SERVER)} {port} {shlex.quote(text)}"
    succeed(node, f"systemd-run -q {server}")
    succeed(node, f"until ss -Hltn sport = {port} | grep -q .; do sleep 0.05; done")


def call(address: tuple[str, int]) -> bytes:
    """What a TCP server says to one who says nothing."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(1 << 16):
            answer += data
        return answer


def ended(node: Node, timeout: float = 20) -> str:
    """Wait for the machine's end, and give the reason."""
    assert node.boot is not None
    assert node.boot.ended.wait(timeout)
    return node.boot.reason


def run_and_lose(node: Node, command: str) -> None:
    """Run what ends the machine under the command."""
    try:
        run(node, command)
    except (AssertionError, MachineDied):
        pass
