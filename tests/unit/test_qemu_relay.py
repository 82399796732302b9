"""A shell over hvc0, which may drop anything: what is given is right, or a loss is told."""

from __future__ import annotations

import base64
import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxc_testing.backends.qemu.backdoor import SCRIPTS
from nxc_testing.backends.qemu.relay import LOST, PacketDecoder, Relay

TOKEN = "0123456789abcdef"  # noqa: S105 (of a connection)
PATIENCE = 20.0

payloads = st.lists(st.binary(max_size=300) | st.just(bytes(300)), min_size=1, max_size=6)


def packets(*contents: bytes) -> bytes:
    """What the relay prints for some payloads, and the question that it asks behind them."""
    lines = [
        b"%s D %d %d %d\n%s" % (TOKEN.encode(), number, len(content), sum(content), content)
        for number, content in enumerate(contents)
    ]
    return b"".join((*lines, b"%s H %d 0 0\n" % (TOKEN.encode(), len(contents))))


def in_pieces(decoder: PacketDecoder, data: bytes, size: int) -> bytes:
    return b"".join(decoder.feed(data[i : i + size]) for i in range(0, len(data), size))


@given(contents=payloads, size=st.integers(1, 50))
def test_what_arrives_is_given_however_it_is_split(contents: list[bytes], size: int) -> None:
    decoder = PacketDecoder(TOKEN)
    assert in_pieces(decoder, packets(*contents), size) == b"".join(contents)
    assert decoder.received == len(contents)
    assert not decoder.lost


@given(
    contents=payloads, place=st.floats(0, 1), length=st.integers(1, 400), size=st.integers(1, 50)
)
def test_what_is_dropped_is_noticed_and_nothing_wrong_is_given(
    contents: list[bytes], place: float, length: int, size: int
) -> None:
    whole = packets(*contents)
    start = int(place * len(whole))
    # As the relay does, it asks until it is answered.
    damaged = whole[:start] + whole[start + length :] + packets(*contents)[-30:] * 2
    decoder = PacketDecoder(TOKEN)
    given_out = in_pieces(decoder, damaged, size)
    assert b"".join(contents).startswith(given_out)
    assert decoder.lost or given_out == b"".join(contents)


@given(noise=st.binary(max_size=300), size=st.integers(1, 50))
def test_what_somebody_else_prints_between_packets_is_skipped(noise: bytes, size: int) -> None:
    decoder = PacketDecoder(TOKEN)
    data = noise + b"\n" + packets(b"one", b"two")
    assert in_pieces(decoder, data, size) == b"onetwo"


def test_the_end_is_seen_also_behind_a_loss() -> None:
    decoder = PacketDecoder(TOKEN)
    decoder.feed(packets(b"one", b"two")[5:])
    assert decoder.lost
    assert not decoder.ended
    decoder.feed(b"\n%s end\n" % TOKEN.encode())
    assert decoder.ended


class Line:
    """The relay itself, in a process of this host, with a wire to it that can be cut into."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        script = f"perl {SCRIPTS / 'relay.pl'} {TOKEN}; printf '\\n{TOKEN} end\\n'; cat >/dev/null"
        with theirs:
            self.process = subprocess.Popen(["bash", "-c", script], stdin=theirs, stdout=theirs)
        self.relay = Relay(TOKEN, self.send)
        self.drop = 0
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def send(self, data: bytes) -> None:
        with suppress(OSError):
            self.ours.sendall(data)

    def read(self) -> None:
        with suppress(OSError):
            while data := self.ours.recv(1 << 16):
                dropped, self.drop = self.drop, 0
                self.relay.feed(data[dropped:])

    def close(self) -> None:
        self.relay.close()
        self.ours.shutdown(socket.SHUT_RDWR)
        self.reader.join(PATIENCE)
        self.ours.close()
        self.process.wait(PATIENCE)


@pytest.fixture
def line() -> Iterator[Line]:
    one = Line()
    assert one.relay.begun.wait(PATIENCE)
    yield one
    one.close()


def read_all(line: Line, count: int) -> bytes:
    """So many bytes of what the shell prints, or fewer if it ends."""
    data = bytearray()
    descriptor = line.relay.channel().reader
    while len(data) < count:
        assert select.select([descriptor], [], [], PATIENCE)[0], "neither more nor an end"
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            break
        data += piece
    return bytes(data)


def type_in(line: Line, text: str) -> None:
    os.write(line.relay.channel().writer, text.encode())


def test_a_shell_is_carried_both_ways(line: Line) -> None:
    content = os.urandom(3 << 20)
    text = base64.b64encode(content)

    def feed() -> None:
        type_in(line, "base64 -d <<END\n")
        for start in range(0, len(text), 4096):
            type_in(line, text[start : start + 4096].decode() + "\n")
        type_in(line, "END\n")

    threading.Thread(target=feed, daemon=True).start()
    assert read_all(line, len(content)) == content


def test_no_more_is_under_way_than_a_socket_holds(line: Line) -> None:
    hold, seen = threading.Event(), list[int]()
    feed = line.relay.feed

    def late(data: bytes) -> None:
        seen.append(len(data))
        hold.wait(PATIENCE)
        feed(data)

    line.relay.feed = late  # type: ignore[method-assign]
    type_in(line, "head -c 2000000 /dev/zero\n")
    while not seen:
        pass
    # As long as nobody answers, no more comes than that.
    threading.Event().wait(1.5)
    waiting = line.ours.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    assert sum(seen) + len(waiting) < 50_000
    hold.set()
    assert read_all(line, 2_000_000) == bytes(2_000_000)


def test_a_loss_ends_the_shell_and_says_why(line: Line) -> None:
    line.drop = 1000
    type_in(line, "head -c 100000 /dev/zero\n")
    assert read_all(line, 100_000) == b""
    assert line.relay.channel().why() == LOST
    assert line.relay.ended.wait(PATIENCE), "the relay goes, and hvc0 can be used again"


def test_the_end_of_an_output_is_missed_too(line: Line) -> None:
    line.drop = 1 << 16
    type_in(line, "echo x\n")
    assert read_all(line, 2) == b""
    assert line.relay.channel().why() == LOST


def test_a_shell_that_ends_ends_the_relay(line: Line) -> None:
    type_in(line, "exit\n")
    assert read_all(line, 1) == b""
    assert line.relay.channel().why() == ""
    assert line.relay.ended.wait(PATIENCE)


def test_garbage_from_the_host_is_a_loss(line: Line) -> None:
    line.ours.sendall(b"what is this\n")
    assert read_all(line, 1) == b""
    assert line.relay.channel().why() == LOST
