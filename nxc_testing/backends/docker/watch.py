"""Notices how containers end: one stream of the engine's events for a whole deployment."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from docker.errors import DockerException
from docker.types.daemon import CancellableStream
from requests.exceptions import RequestException

from nxc_testing.backends.docker.engine import Engine, socket_problem
from nxc_testing.errors import DeploymentError

logger = logging.getLogger("nxc_testing.docker")

SIGNAL_BASE = 128
REBOOTED = SIGNAL_BASE + signal.SIGHUP
POWERED_OFF = SIGNAL_BASE + signal.SIGINT
"""reboot(2) in a PID namespace: its init ends by SIGHUP for a restart, by SIGINT for a halt."""

PAUSE = 0.2
PATIENCE = 10.0
"""Seconds to look for an engine that is gone, before its machines count as lost."""


@dataclass(frozen=True, slots=True)
class Death:
    """How a container ended.

    :ivar code: its init's exit status as the engine has it.
    :ivar out_of_memory: whether the kernel killed something in it for want of memory.
    :ivar killed_from_outside: whether somebody asked the engine to kill it.
    """

    code: int
    out_of_memory: bool = False
    killed_from_outside: bool = False

    @property
    def reboot(self) -> bool:
        """Whether the machine asked to be started again."""
        return self.code == REBOOTED

    @property
    def reason(self) -> str:
        """In words."""
        if self.reboot:
            return "it rebooted"
        if self.code in (0, POWERED_OFF):
            return "it powered off"
        if self.code == SIGNAL_BASE + signal.SIGKILL:
            if self.out_of_memory and not self.killed_from_outside:
                return "out of memory: the kernel killed it, exit code 137"
            return "killed, exit code 137"
        if self.code > SIGNAL_BASE:
            name = signal.strsignal(self.code - SIGNAL_BASE) or "unknown signal"
            return f"its init ended by signal {self.code - SIGNAL_BASE} ({name})"
        return f"its init ended with exit code {self.code}"


class Watch:
    """A thread that reads the events of all containers with one label, and tells their ends.

    :param label: `key=value`.
    :param died: called on the thread with a container's id and how it ended.
    :param lost: called on the thread with the reason when the engine is gone for good.
    """

    def __init__(
        self,
        engine: Engine,
        label: str,
        died: Callable[[str, Death], None],
        lost: Callable[[str], None],
    ):
        self._engine, self._label = engine, label
        self._died, self._lost = died, lost
        self._closing = threading.Event()
        self._out_of_memory: set[str] = set()
        self._killed: set[str] = set()
        # Kept from other uses: a stream holds its client's connection.
        self._client = engine.connect()
        try:
            # From a moment ago on: the engine answers before it has subscribed us.
            self._stream = self._open(engine.info.clock)
        except BaseException:
            self._client.close()
            raise
        self._thread = threading.Thread(target=self._run, name="nxc-docker-events", daemon=True)
        self._thread.start()

    def _open(self, since: int | None = None) -> CancellableStream[dict[str, Any]]:
        filters = {"type": "container", "label": self._label}
        return self._client.api.events(since=since, filters=filters, decode=True)

    def _run(self) -> None:
        while not self._closing.is_set():
            for event in self._stream:
                try:
                    self._on_event(event)
                except Exception:
                    logger.exception("an event of the Docker engine could not be handled")
            if not self._closing.is_set() and not self._reopen():
                return

    def _reopen(self) -> bool:
        logger.warning("the Docker engine ended its event stream")
        self._close_stream()
        give_up = time.monotonic() + PATIENCE
        while not self._closing.wait(PAUSE):
            # Asked first: the SDK does not close a socket that it could not connect.
            problem = socket_problem(self._engine.host)
            if problem is None:
                try:
                    self._stream = self._open()
                    self._catch_up()
                    return True
                except (DockerException, RequestException, DeploymentError) as error:
                    problem = str(error)
                    self._close_stream()
            if time.monotonic() > give_up:
                self._lost(f"the Docker engine is gone: {problem}")
                return False
        return False

    def _catch_up(self) -> None:
        """Tell the deaths that nobody heard of."""
        with self._engine.api("looking for the machines") as api:
            found = api.containers(all=True, filters={"label": self._label})
            for one in found:
                state = api.inspect_container(one["Id"])["State"]
                if state["Status"] == "exited":
                    self._died(one["Id"], Death(state["ExitCode"], state["OOMKilled"]))

    def _on_event(self, event: Mapping[str, Any]) -> None:
        container, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
        match event["Action"]:
            case "start":
                self._out_of_memory.discard(container)
                self._killed.discard(container)
            case "oom":
                self._out_of_memory.add(container)
            case "kill" if attributes.get("signal") == str(int(signal.SIGKILL)):
                self._killed.add(container)
            case "die":
                self._died(
                    container,
                    Death(
                        int(attributes.get("exitCode", 0)),
                        container in self._out_of_memory,
                        container in self._killed,
                    ),
                )

    def _close_stream(self) -> None:
        with suppress(OSError):
            self._stream.close()

    def close(self) -> None:
        """End the thread; may be called twice."""
        self._closing.set()
        self._close_stream()
        self._thread.join(PATIENCE)
        self._client.close()
