"""The switch carries frames to those who should have them, and to nobody else."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from nxc_testing.backends.qemu.helpers import Switch

A, B, C = (bytes((2, 0, 0, 0, 0, number)) for number in (1, 2, 3))
ALL = b"\xff" * 6
QUIET = 0.2


def frame(to: bytes, sender: bytes, text: bytes = b"text") -> bytes:
    data = to + sender + b"\x08\x00" + text
    return struct.pack(">I", len(data)) + data


class Network:
    """Connections to one switch."""

    def __init__(self, switch: Switch):
        self.switch = switch
        self._open: list[socket.socket] = []

    def plug(self, network: str = "lan") -> socket.socket:
        connection = self.switch.plug(network)
        connection.settimeout(10)
        self._open.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._open:
            connection.close()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    switch = Switch(tmp_path, dict(os.environ))
    made = Network(switch)
    yield made
    made.close()
    switch.close()


def hears(connection: socket.socket, data: bytes) -> bool:
    """Whether exactly this comes."""
    received = b""
    while len(received) < len(data):
        received += connection.recv(len(data) - len(received))
    return received == data


def hears_nothing(connection: socket.socket) -> bool:
    connection.settimeout(QUIET)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(10)


def test_what_is_for_all_reaches_all_others(network: Network) -> None:
    a, b, c = (network.plug() for _ in range(3))
    a.sendall(frame(ALL, A))
    assert hears(b, frame(ALL, A))
    assert hears(c, frame(ALL, A))
    assert hears_nothing(a)


def test_what_is_for_one_reaches_only_that_one(network: Network) -> None:
    a, b, c = (network.plug() for _ in range(3))
    b.sendall(frame(ALL, B))
    assert hears(a, frame(ALL, B))
    assert hears(c, frame(ALL, B))
    a.sendall(frame(B, A))
    assert hears(b, frame(B, A))
    assert hears_nothing(c)


def test_a_frame_may_come_in_pieces_and_many_at_once(network: Network) -> None:
    a, b = network.plug(), network.plug()
    data = b"".join(frame(ALL, A, bytes([number]) * 100 * number) for number in range(50))
    for start in range(0, len(data), 777):
        a.sendall(data[start : start + 777])
    assert hears(b, data)


def test_networks_are_apart(network: Network) -> None:
    a, other = network.plug("lan"), network.plug("wan")
    b = network.plug("lan")
    a.sendall(frame(ALL, A))
    assert hears(b, frame(ALL, A))
    assert hears_nothing(other)


def test_who_is_gone_is_forgotten(network: Network) -> None:
    a, b, c = (network.plug() for _ in range(3))
    b.sendall(frame(ALL, B))
    assert hears(a, frame(ALL, B))
    assert hears(c, frame(ALL, B))
    b.close()
    again = network.plug()
    # What went to the one that is gone goes to all again: it may have moved.
    c.sendall(frame(ALL, C))
    assert hears(again, frame(ALL, C))
    assert hears(a, frame(ALL, C))
    a.sendall(frame(B, A))
    assert hears(again, frame(B, A))


def test_who_does_not_read_holds_up_nobody(network: Network) -> None:
    a, deaf, b = (network.plug() for _ in range(3))
    assert hears_nothing(deaf)
    data = frame(ALL, A, b"x" * 60_000)
    for _ in range(200):
        a.sendall(data)
        assert hears(b, data)


def test_who_is_out_of_step_is_unplugged(network: Network) -> None:
    a, b, mad = (network.plug() for _ in range(3))
    mad.sendall(b"\xff" * 100)
    assert mad.recv(1) == b""
    a.sendall(frame(ALL, A))
    assert hears(b, frame(ALL, A))
