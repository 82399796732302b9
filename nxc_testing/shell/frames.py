"""The messages of a shell channel, as a state machine without I/O.

To the machine: `KIND ID [ARGUMENT ...] LENGTH` and a newline, then LENGTH bytes.
From the machine: `TOKEN KIND ID LENGTH` and a newline, then LENGTH bytes. The token, drawn for
each connection, finds the first frame after whatever else came (a login banner, a kernel's
message): it is no protection, and none is needed, because commands do not hold the channel.

====  ======================  =====================================================
kind  payload                 meaning
====  ======================  =====================================================
P     empty                   the agent is there; the answer to a ping
O E   bytes                   a command's stdout, stderr
L     bytes                   stderr of a command that has ended: a daemon it left
H     exit status             its process has ended, but something holds its stdout
D     exit status             it is over: the process has ended, its stdout is closed
A     number                  bytes of its input that were taken
F     text                    it could not be started
N     text                    there will be no agent, and why
====  ======================  =====================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_HEADER = 256
MAX_PAYLOAD = 1 << 20
_FIELDS = re.compile(rb"([POELHDAFN]) (\d{1,18}) (\d{1,8})\r?")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message from the machine."""

    kind: str
    id: int
    payload: bytes


class FrameDecoder:
    """Cuts what comes from a machine into frames, however it is split.

    :param token: the connection's token.
    :ivar noise: bytes that belonged to no frame.
    """

    def __init__(self, token: str):
        self._token = token.encode() + b" "
        self._buffer = bytearray()
        self.noise = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes, give the frames that are whole.

        :param data: what came.
        :return: in the order of arrival.
        """
        self._buffer += data
        frames: list[Frame] = []
        position = 0
        while (end := self._buffer.find(b"\n", position)) >= 0:
            header = self._header(bytes(self._buffer[position:end]))
            if header is None:
                self._drop(self._buffer[position : end + 1])
                position = end + 1
                continue
            kind, identifier, length = header
            start = end + 1
            if len(self._buffer) < start + length:
                break
            payload = bytes(memoryview(self._buffer)[start : start + length])
            frames.append(Frame(kind, identifier, payload))
            position = start + length
        del self._buffer[:position]
        if len(self._buffer) > MAX_HEADER and b"\n" not in self._buffer[: MAX_HEADER + 1]:
            # No header is that long: a flood without a newline must not fill the memory.
            cut = len(self._buffer) - MAX_HEADER
            self._drop(self._buffer[:cut])
            del self._buffer[:cut]
        return frames

    @property
    def held(self) -> int:
        """How many bytes wait for more."""
        return len(self._buffer)

    def _header(self, line: bytes) -> tuple[str, int, int] | None:
        # The token may stand behind a prompt or a banner that ended without a newline.
        at = line.rfind(self._token)
        if at < 0:
            return None
        fields = _FIELDS.fullmatch(line, at + len(self._token))
        if fields is None or int(fields[3]) > MAX_PAYLOAD:
            return None
        if at:
            self._drop(line[:at])
        return fields[1].decode(), int(fields[2]), int(fields[3])

    def _drop(self, data: bytes | bytearray) -> None:
        self.noise += data
        del self.noise[:-4096]


def order(kind: str, identifier: int, *arguments: str, payload: bytes = b"") -> bytes:
    """A message to the machine."""
    header = " ".join([kind, str(identifier), *arguments, str(len(payload))])
    return header.encode() + b"\n" + payload
