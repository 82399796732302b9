"""Byte streams between the engine and us: shells in machines, and their consoles.

The engine answers these two requests by giving the HTTP connection away ("hijacking", Docker
Engine API, "Attach to a container"): from then on it carries the process' own bytes.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

import docker
from docker.errors import APIError

from nxc_testing.backends.base import Channel
from nxc_testing.shell.loop import io_loop

logger = logging.getLogger("nxc_testing.docker")

SWITCHED = (101, 200)
"""The HTTP statuses of a connection that was given away: Switching Protocols, or plain OK."""

READ_SIZE = 1 << 16
HEADER = struct.Struct(">BxxxL")
STDOUT, STDERR = 1, 2
SHELL = ("/bin/sh",)


def hijack(
    api: docker.APIClient,
    path: str,
    *,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, int] | None = None,
) -> socket.socket:
    """Ask for something whose answer is a raw connection.

    docker-py's own way leaves its socket to the garbage collector; here it is the caller's.

    :param path: of the request, after the API's version.
    :return: the connection; non-blocking.
    :raise APIError: if the engine refuses.
    """
    response = api.post(
        f"{api.base_url}/v{api.api_version}{path}",
        json=body,
        params=query,
        headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        stream=True,
        timeout=api.timeout,
    )
    try:
        if response.status_code not in SWITCHED:
            message = response.json().get("message", response.reason)
            raise APIError(message, response=response, explanation=message)
        connection = socket.socket(fileno=os.dup(response.raw.fileno()))
    finally:
        response.close()
    connection.setblocking(False)
    return connection


def open_shell(api: docker.APIClient, container: str, machine: str) -> Channel:
    """A root shell in a running container.

    :param machine: the machine's name, for the log.
    :raise APIError: if the container does not run, or is paused.
    """
    made = api.exec_create(
        container, list(SHELL), stdin=True, stdout=True, stderr=True, user="root", workdir="/"
    )
    body = {"Detach": False, "Tty": False}
    connection = hijack(api, f"/exec/{made['Id']}/start", body=body)
    return Channel(
        reader=connection.fileno(),
        writer=connection.fileno(),
        close=lambda: _hang_up(connection),
        decoder=MuxDecoder(machine),
    )


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


class MuxDecoder:
    """Takes the engine's 8-byte headers off a process' output; stdout alone passes.

    The format is that of the Docker Engine API, "Attach to a container", "Stream format".

    :param machine: the machine's name, for what goes to the log.
    """

    def __init__(self, machine: str):
        self._machine = machine
        self._header = bytearray()
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """What stdout said in these bytes; a header or payload that is cut is held."""
        passed = []
        at = 0
        while at < len(data):
            if not self._left:
                at += self._feed_header(data[at : at + HEADER.size - len(self._header)])
                continue
            payload = data[at : at + self._left]
            at += len(payload)
            self._left -= len(payload)
            if self._stream == STDOUT:
                passed.append(payload)
            elif self._stream == STDERR:
                logger.debug("%s: shell: %s", self._machine, payload.decode(errors="replace"))
            else:
                logger.warning("%s: engine: %s", self._machine, payload.decode(errors="replace"))
        return passed[0] if len(passed) == 1 else b"".join(passed)

    def _feed_header(self, data: bytes) -> int:
        self._header += data
        if len(self._header) == HEADER.size:
            self._stream, self._left = HEADER.unpack(self._header)
            self._header.clear()
        return len(data)


class Console:
    """What PID 1 writes during one boot, given to a function as it comes.

    :param api: used during the call only.
    :param container: not running yet, so that the first byte is seen.
    :param sink: called on the background loop's thread.
    :ivar drained: set when there is no more to come.
    """

    def __init__(self, api: docker.APIClient, container: str, sink: Callable[[bytes], None]):
        query = {"stream": 1, "stdout": 1, "stderr": 1}
        self._connection = hijack(api, f"/containers/{container}/attach", query=query)
        self._sink = sink
        self._loop = io_loop()
        self.drained = threading.Event()
        self._loop.call(self._loop.asyncio.add_reader, self._connection.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = self._connection.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        try:
            self._sink(data)
        except Exception:
            logger.exception("a console's reader failed")

    def close(self) -> None:
        """Read no more; may be called twice, from any thread."""
        self._loop.call(self._end)

    def _end(self) -> None:
        if not self.drained.is_set():
            self._loop.asyncio.remove_reader(self._connection.fileno())
            self._connection.close()
            self.drained.set()
