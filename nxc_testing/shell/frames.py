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
MAX_NOISE = 4096


@dataclass(frozen=True, slots=True)
class Frame:
    """One message from the machine."""

    kind: str
    id: int
    payload: bytes


class FrameDecoder:
    """Cuts what comes from a machine into frames, however it is split.

    :param token: the connection's token.
    """

    def __init__(self, token: str):
        self._header = re.compile(token.encode() + rb" ([POELHDAFN]) (\d{1,18}) (\d{1,8})\r?\n")
        self._noise = bytearray()
        self._held = bytearray()
        self._wanted = 0

    @property
    def noise(self) -> bytes:
        """The end of what belonged to no frame, or not yet."""
        return bytes(self._noise + self._held)[-MAX_NOISE:]

    @property
    def held(self) -> int:
        """How many bytes wait for more."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes, give the frames that are whole.

        :param data: what came.
        :return: in the order of arrival.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return []
            data = bytes(self._held)
            self._held.clear()
        frames: list[Frame] = []
        position = 0
        # The token may also stand behind a prompt or a banner that ended without a newline.
        while header := self._header.search(data, position):
            end = header.end() + int(header[3])
            if int(header[3]) > MAX_PAYLOAD:
                end = header.end()
            elif end > len(data):
                self._drop(data[position : header.start()])
                self._hold(data[header.start() :], end - header.start())
                return frames
            else:
                self._drop(data[position : header.start()])
                payload = data[header.end() : end]
                frames.append(Frame(header[1].decode(), int(header[2]), payload))
            position = end
        # A line that has only begun may be a header; but no header is longer than that.
        begun = max(position, data.rfind(b"\n") + 1, len(data) - MAX_HEADER)
        self._drop(data[position:begun])
        self._hold(data[begun:], 0)
        return frames

    def _hold(self, data: bytes, wanted: int) -> None:
        self._held += data
        self._wanted = wanted

    def _drop(self, data: bytes) -> None:
        if data:
            self._noise += data
            del self._noise[:-MAX_NOISE]


def order(kind: str, identifier: int, *arguments: str, payload: bytes = b"") -> bytes:
    """A message to the machine."""
    header = " ".join([kind, str(identifier), *arguments, str(len(payload))])
    return header.encode() + b"\n" + payload
