"""TCP ports and UNIX sockets, seen from inside a machine, and a port seen from the host."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from nxc_testing.backends.base import ForwardsPorts
from nxc_testing.conformance.target import PATIENCE
from nxc_testing.errors import MachineUsageError, WaitTimeout
from nxc_testing.machine import Machine

SERVER = """
use Socket;
my ($port, $mark) = @ARGV;
socket(S, PF_INET, SOCK_STREAM, 0) or die;
setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1) or die;
bind(S, sockaddr_in($port, INADDR_ANY)) or die;
listen(S, 16) or die;
open(M, ">", "$mark.new"); print M (sockaddr_in(getsockname(S)))[0]; close M;
rename "$mark.new", $mark;
while (accept(C, S)) { syswrite C, "hello\\n"; close C }
"""
"""Listens on a port (0 for a free one) and writes which to a file, once it does."""

LISTENER = """
use Socket;
my ($kind, $path) = @ARGV;
my $type = $kind eq "stream" ? SOCK_STREAM : SOCK_DGRAM;
socket(S, PF_UNIX, $type, 0) or die;
bind(S, sockaddr_un($path)) or die;
if ($kind eq "stream") { listen(S, 1) or die }
sleep 1000;
"""


class Server:
    """A TCP server in a machine.

    :ivar port: where it listens.
    """

    def __init__(self, machine: Machine, scratch: str):
        self._machine = machine
        self._script, self._mark = f"{scratch}/server.pl", f"{scratch}/port"
        machine.succeed(f"cat >{self._script} <<'EOF'\n{SERVER}EOF")
        self.port = 0
        self.start()
        machine.wait_for_file(self._mark, PATIENCE)
        self.port = int(machine.succeed(f"cat {self._mark}"))

    def start(self, delay: float = 0) -> None:
        """Listen, in a while.

        :param delay: seconds.
        """
        perl = f"exec perl {self._script} {self.port} {self._mark}"
        self._machine.succeed(f"(sleep {delay}; {perl}) >/dev/null 2>&1 &")

    def stop(self, delay: float = 0) -> None:
        """Listen no more, in a while."""
        kill = f"pkill -f '^perl {self._script}'"
        self._machine.succeed(f"(sleep {delay}; {kill}) >/dev/null 2>&1 &")


@pytest.fixture
def server(machine: Machine, scratch: str) -> Iterator[Server]:
    """A TCP server in `machine`."""
    server = Server(machine, scratch)
    yield server
    server.stop()


class TestPorts:
    @pytest.mark.parametrize(
        "wait",
        [
            lambda machine, port: machine.wait_for_open_port(port),
            lambda machine, port: machine.wait_for_open_port(port, "127.0.0.1"),
            lambda machine, port: machine.wait_for_open_port(str(port), addr="localhost"),
            lambda machine, port: machine.wait_for_open_port(port, timeout=timedelta(seconds=9)),
        ],
    )
    def test_an_open_port_is_open(
        self, machine: Machine, server: Server, wait: Callable[[Machine, int], None]
    ) -> None:
        wait(machine, server.port)

    def test_it_waits_until_a_port_opens(self, machine: Machine, server: Server) -> None:
        server.stop()
        machine.wait_for_closed_port(server.port, timeout=PATIENCE)
        server.start(0.5)
        machine.wait_for_open_port(server.port, timeout=PATIENCE)

    def test_it_waits_until_a_port_closes(self, machine: Machine, server: Server) -> None:
        server.stop(0.5)
        machine.wait_for_closed_port(server.port, "localhost", PATIENCE)

    def test_a_port_that_stays_closed_shows_who_listens(
        self, machine: Machine, server: Server
    ) -> None:
        server.stop()
        machine.wait_for_closed_port(server.port, timeout=PATIENCE)
        with pytest.raises(WaitTimeout, match=rf"TCP port {server.port} on localhost to be open"):
            machine.wait_for_open_port(server.port, timeout=0.3)

    def test_a_port_that_stays_open_shows_who_listens(
        self, machine: Machine, server: Server
    ) -> None:
        with pytest.raises(WaitTimeout, match=f"listening: (.|\n)*:{server.port}"):
            machine.wait_for_closed_port(server.port, timeout=0.3)

    @pytest.mark.parametrize("port", [0, 65536, -1, True, "http", 8.5])
    def test_what_is_no_port_is_refused(self, machine: Machine, port: int) -> None:
        with pytest.raises(MachineUsageError, match="TCP port"):
            machine.wait_for_open_port(port)

    def test_another_host_that_is_unreachable_counts_as_closed(self, machine: Machine) -> None:
        machine.wait_for_closed_port(80, "192.0.2.1", timeout=PATIENCE)


class TestUnixSockets:
    @pytest.mark.parametrize("datagram", [False, True])
    def test_it_waits_until_one_is_open(
        self, machine: Machine, scratch: str, datagram: bool
    ) -> None:
        path, kind = f"{scratch}/socket", "datagram" if datagram else "stream"
        machine.succeed(f"cat >{scratch}/listener.pl <<'EOF'\n{LISTENER}\nEOF")
        machine.succeed(
            f"(sleep 0.3; exec perl {scratch}/listener.pl {kind} {path}) >/dev/null 2>&1 &"
        )
        machine.wait_for_open_unix_socket(path, datagram, PATIENCE)
        machine.succeed(f"pkill -f '^perl {scratch}/listener.pl'")

    def test_a_socket_of_the_other_kind_is_none(self, machine: Machine, scratch: str) -> None:
        path = f"{scratch}/socket"
        machine.succeed(f"cat >{scratch}/listener.pl <<'EOF'\n{LISTENER}\nEOF")
        machine.succeed(f"perl {scratch}/listener.pl stream {path} >/dev/null 2>&1 &")
        machine.wait_for_open_unix_socket(path, timeout=PATIENCE)
        with pytest.raises(WaitTimeout, match="srw"):
            machine.wait_for_open_unix_socket(path, is_datagram=True, timeout=0.3)
        machine.succeed(f"pkill -f '^perl {scratch}/listener.pl'")

    def test_a_path_without_listener_times_out(self, machine: Machine, scratch: str) -> None:
        with pytest.raises(WaitTimeout, match="No such file"):
            machine.wait_for_open_unix_socket(f"{scratch}/none", timeout=0.2)


class TestForwardPort:
    def test_the_host_reaches_a_port_of_the_machine(self, machine: Machine, server: Server) -> None:
        if not isinstance(machine.node, ForwardsPorts):
            pytest.skip(f"{machine.backend} has no ForwardsPorts")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            host_port = free.getsockname()[1]
        machine.forward_port(host_port, server.port)
        assert _greeting(host_port) == b"hello\n"


def _greeting(port: int) -> bytes:
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                return connection.recv(100)
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)
