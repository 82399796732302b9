"""Lets a port of the host lead to a port of a machine: a relay on the background loop."""

from __future__ import annotations

import asyncio
import logging

from nxc_testing.errors import DeploymentError
from nxc_testing.shell.loop import io_loop

logger = logging.getLogger("nxc_testing.host")

READ_SIZE = 1 << 16
LOOPBACK = "127.0.0.1"
TIMEOUT = 30.0


class PortRelay:
    """Listens on the host's loopback and connects each caller to a machine.

    :param host_port: where to listen; 0 takes a free port.
    :param address: the machine's address and port.
    :raise OSError: if the host's port is taken.
    :ivar port: where it listens.
    """

    def __init__(self, host_port: int, address: tuple[str, int]):
        self._address = address
        self._calls: set[asyncio.Task[None]] = set()
        self._server = io_loop().run(
            asyncio.start_server(self._serve, LOOPBACK, host_port), TIMEOUT
        )
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            await self._relay(reader, writer)
        except OSError as error:
            logger.debug("port %d to %s: %s", self.port, self._address, error)
        finally:
            self._calls.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._address)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, there_writer))
                both.create_task(_pump(there_reader, writer))
        except* OSError as errors:
            logger.debug("port %d to %s: %s", self.port, self._address, errors.exceptions)
        finally:
            there_writer.close()

    def close(self) -> None:
        """Stop listening and end the calls."""
        io_loop().run(self._close(), TIMEOUT)

    async def _close(self) -> None:
        self._server.close()
        for task in tuple(self._calls):
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


class Relays:
    """The relays of one machine.

    :param machine: its name, for messages.
    """

    def __init__(self, machine: str):
        self._machine = machine
        self._relays: list[PortRelay] = []

    def add(self, host_port: int, address: tuple[str, int]) -> PortRelay:
        """Let a port of the host lead to an address.

        :param host_port: 0 takes a free one.
        :raise DeploymentError: if it is taken.
        """
        try:
            relay = PortRelay(host_port, address)
        except OSError as error:
            raise DeploymentError(
                f"{self._machine}: forwarding port {host_port}: {error}"
            ) from error
        self._relays.append(relay)
        return relay

    def close(self) -> None:
        """End all of them."""
        while self._relays:
            self._relays.pop().close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes until the end, and then tell it: the other direction may go on."""
    while data := await reader.read(READ_SIZE):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
