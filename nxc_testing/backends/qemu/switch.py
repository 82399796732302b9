"""The switch of a deployment: carries frames between machines, and needs no privilege.

QEMU's `-netdev socket` sends Ethernet frames over a stream, each behind its length. Here the other
ends of these streams meet. A connection begins with a line that names its network, which is
answered by an empty one; the frames of one network never reach another.

This file runs as a script, with the number of a listening descriptor. It imports nothing that
costs, and runs until it is killed.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys

LENGTH = struct.Struct(">I")
READ_SIZE = 1 << 18
LONGEST_FRAME = 1 << 17
QUEUE_LIMIT = 4 << 20
"""Bytes that wait for a machine that does not read; more are dropped, as a switch would."""

GROUP_BIT = 1
"""In the first byte of an Ethernet address that is not one machine's."""


class Port:
    """One machine's end of a network.

    :ivar network: what it is plugged into; None until the connection has said it.
    """

    def __init__(self, stream: socket.socket):
        self.stream = stream
        self.network: Network | None = None
        self.received = bytearray()
        self.waiting = bytearray()

    def send(self, data: bytes | bytearray) -> bool:
        """Send whole frames, or drop them.

        :return: whether something waits until the stream can take more.
        """
        if len(self.waiting) > QUEUE_LIMIT:
            return True
        self.waiting += data
        return self.flush()

    def flush(self) -> bool:
        """Send what waits.

        :return: whether something still does.
        """
        try:
            while self.waiting:
                del self.waiting[: self.stream.send(self.waiting)]
        except BlockingIOError:
            return True
        except OSError:
            # Its end is met by whoever reads from it.
            self.waiting.clear()
        return False

    def frames(self) -> list[bytes]:
        """What came in whole, each with its length before it."""
        found = []
        data, at = self.received, 0
        while len(data) - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, at)
            if length > LONGEST_FRAME:
                raise ValueError(f"a frame of {length} bytes")
            end = at + LENGTH.size + length
            if end > len(data):
                break
            found.append(bytes(data[at:end]))
            at = end
        del data[:at]
        return found


class Network:
    """An Ethernet segment.

    :ivar places: the ports behind which addresses were seen.
    """

    def __init__(self) -> None:
        self.ports: set[Port] = set()
        self.places: dict[bytes, Port] = {}

    def remove(self, port: Port) -> None:
        """Unplug a port."""
        self.ports.discard(port)
        self.places = {address: at for address, at in self.places.items() if at is not port}

    def carry(self, source: Port, frames: list[bytes]) -> dict[Port, bytearray]:
        """What each port gets of frames that came by one."""
        parcels: dict[Port, bytearray] = {}
        for frame in frames:
            to, sender = frame[4:10], frame[10:16]
            if len(sender) < 6:
                continue
            self.places[sender] = source
            known = None if to[0] & GROUP_BIT else self.places.get(to)
            for port in (known,) if known else self.ports:
                if port is not source:
                    parcels.setdefault(port, bytearray()).extend(frame)
        return parcels


class Switch:
    """All networks of a deployment.

    :param listener: where machines connect.
    """

    def __init__(self, listener: socket.socket):
        self._networks: dict[bytes, Network] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def serve(self) -> None:
        """Carry frames, for ever."""
        while True:
            for key, events in self._selector.select():
                port = key.data
                if port is None:
                    self._accept()
                    continue
                if events & selectors.EVENT_WRITE:
                    self._watch(port, port.flush())
                if events & selectors.EVENT_READ:
                    self._receive(port)

    def _accept(self) -> None:
        try:
            stream, _ = self._listener.accept()
        except OSError:
            return
        stream.setblocking(False)
        self._selector.register(stream, selectors.EVENT_READ, Port(stream))

    def _watch(self, port: Port, writing: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        if self._selector.get_key(port.stream).events != events:
            self._selector.modify(port.stream, events, port)

    def _receive(self, port: Port) -> None:
        try:
            data = port.stream.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        port.received += data
        try:
            if not data or not self._plugged(port):
                frames: list[bytes] = []
            else:
                frames = port.frames()
        except ValueError:
            # Not a machine, or one that is out of step: it can only be unplugged.
            data = b""
        if not data:
            self._unplug(port)
            return
        if port.network and frames:
            for target, parcel in port.network.carry(port, frames).items():
                self._watch(target, target.send(parcel))

    def _plugged(self, port: Port) -> bool:
        """See which network a port belongs to."""
        if port.network is None:
            name, newline, rest = port.received.partition(b"\n")
            if newline:
                port.network = self._networks.setdefault(bytes(name), Network())
                port.network.ports.add(port)
                port.received = rest
                port.send(b"\n")
        return port.network is not None

    def _unplug(self, port: Port) -> None:
        self._selector.unregister(port.stream)
        port.stream.close()
        if port.network:
            port.network.remove(port)


if __name__ == "__main__":
    Switch(socket.socket(fileno=int(sys.argv[1]))).serve()
