"""Joins a network of the switch and a bridge of the host: virtual machines meet containers there.

This file runs as a script, in the bridge's network namespace, with the numbers of two descriptors
and the bridge: a connection to the switch, and a pipe that is told when the two are joined. Its
end of the bridge is a tap, which goes with it; as to any device without offloads, the kernel gives
it frames that are whole and checked.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading

LENGTH = struct.Struct(">I")
LONGEST_FRAME = 1 << 16
DEVICE = "/dev/net/tun"
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 2, 0x1000


def make_tap(bridge: str) -> int:
    """A tap that is plugged into a bridge; its name is the kernel's choice."""
    tap = os.open(DEVICE, os.O_RDWR)
    wanted = struct.pack("16sH22x", b"nxctap%d", IFF_TAP | IFF_NO_PI)
    name = fcntl.ioctl(tap, TUNSETIFF, wanted)[:16].rstrip(b"\0").decode()
    subprocess.run(["ip", "link", "set", name, "master", bridge, "up"], check=True)
    return tap


def receive(link: socket.socket, count: int) -> bytes:
    """So many bytes; the script ends where the switch does."""
    data = bytearray()
    while len(data) < count:
        piece = link.recv(count - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return bytes(data)


def to_switch(tap: int, link: socket.socket) -> None:
    """Carry frames, for ever."""
    while True:
        frame = os.read(tap, LONGEST_FRAME)
        link.sendall(LENGTH.pack(len(frame)) + frame)


def to_bridge(tap: int, link: socket.socket) -> None:
    """Carry frames, for ever."""
    while True:
        (length,) = LENGTH.unpack(receive(link, LENGTH.size))
        frame = receive(link, length)
        try:
            os.write(tap, frame)
        except OSError:
            # As a switch would that cannot pass it on: it is lost.
            continue


if __name__ == "__main__":
    connection = socket.socket(fileno=int(sys.argv[1]))
    device = make_tap(sys.argv[3])
    os.write(int(sys.argv[2]), b"\n")
    os.close(int(sys.argv[2]))
    threading.Thread(target=to_switch, args=(device, connection), daemon=True).start()
    to_bridge(device, connection)
