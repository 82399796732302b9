"""The host's end of `guest/relay.pl`: takes packets off hvc0, and sees what is missing."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from nxc_testing.backends.base import Channel

MAX_HEADER = 128
LENGTH_LIMIT = 1 << 14
READ_SIZE = 1 << 16
END = b" end"
"""Behind the token: the relay in the machine has ended."""

LOST = "hvc0 lost data, as it does when the host is too busy to read it at once"


class PacketDecoder:
    """Cuts what comes over hvc0 into payloads, however it is split; no I/O.

    What stands between packets is somebody else's, and skipped.

    :param token: that of the relay.
    :ivar received: how many packets came.
    :ivar lost: whether something is missing; nothing that came after it is given.
    :ivar ended: whether the relay has ended.
    """

    def __init__(self, token: str):
        self._token = token.encode()
        self._header = re.compile(self._token + rb" ([DHL]) (\d{1,18}) (\d{1,9}) (\d{1,18})\r?\n")
        self._end = self._token + END
        self._held = bytearray()
        self.received = 0
        self.lost = self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes, give the payload that is whole."""
        self._held += data
        payload = bytearray()
        while not self.lost and (header := self._header.search(self._held)):
            packet = self._packet(header)
            if packet is None:
                return bytes(payload)
            payload += packet
        self.ended = self._end in self._held
        del self._held[:-MAX_HEADER]
        return bytes(payload)

    def _packet(self, header: re.Match[bytes]) -> bytes | None:
        """Take the packet of a header; None as long as it is not whole."""
        number, length, checksum = (int(header[group]) for group in (2, 3, 4))
        end = header.end() + length
        body = self._held[header.end() : end]
        whole = len(body) == length
        # The next packet, or the end, may have begun in the middle of this one.
        self.lost = (
            header[1] == b"L"
            or number != self.received
            or length > LENGTH_LIMIT
            or self._token in body
            or (whole and sum(body) != checksum)
        )
        if self.lost:
            return b""
        if not whole:
            del self._held[: header.start()]
            return None
        self.received += header[1] == b"D"
        del self._held[:end]
        return bytes(body)


class Relay:
    """A shell over hvc0.

    :param token: that of the relay in the machine.
    :param send: sends to it, whole, and raises nothing.
    :ivar begun: set when the relay in the machine has.
    :ivar ended: set when it has ended, and hvc0 is the backdoor's again.
    """

    def __init__(self, token: str, send: Callable[[bytes], None]):
        self._decoder, self._send = PacketDecoder(token), send
        self._near, self._far = socket.socketpair()
        self.begun, self.ended = threading.Event(), threading.Event()
        threading.Thread(target=self._send_on, name="nxc-hvc0-input", daemon=True).start()

    def feed(self, data: bytes) -> None:
        """Take what came over hvc0; called by its only reader."""
        decoder = self._decoder
        before, was_lost = decoder.received, decoder.lost
        payload = decoder.feed(data)
        with suppress(OSError):
            self._near.sendall(payload)
        if decoder.received > before:
            self._send(b"A %d 0\n" % decoder.received)
            self.begun.set()
        if decoder.lost and not was_lost:
            self._quit()
        if decoder.ended:
            self.ended.set()
        if decoder.lost or decoder.ended:
            self._hang_up(self._near)

    def channel(self) -> Channel:
        """The shell, from now on."""
        number = self._far.fileno()
        return Channel(number, number, self.close, why=self._why)

    def _why(self) -> str:
        return LOST if self._decoder.lost else ""

    def _send_on(self) -> None:
        """Bring what the shell is to read."""
        number = 0
        with self._near:
            with suppress(OSError):
                while data := self._near.recv(READ_SIZE):
                    self._send(b"D %d %d\n" % (number, len(data)) + data)
                    number += 1
            self._quit()

    def signal_init(self, number: int) -> None:
        """Send a signal to the machine's first process."""
        self._send(b"S %d 0\n" % number)

    def _quit(self) -> None:
        if not self.ended.is_set():
            self._send(b"Q 0 0\n")

    def gone(self) -> None:
        """Nothing comes over hvc0 any more: whoever has the shell is told."""
        self.ended.set()
        self._hang_up(self._near)

    def close(self) -> None:
        """Hang up; the relay in the machine ends. May be called twice."""
        self._hang_up(self._far)
        self._far.close()

    def _hang_up(self, end: socket.socket) -> None:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
