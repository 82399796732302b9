"""One machine: a container, its power, its shells, its console and its links."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from docker.errors import APIError

from nxc_testing.backends.base import Boot, Channel
from nxc_testing.backends.docker.engine import CONFLICT, NOT_FOUND, Engine, explanation, status
from nxc_testing.backends.docker.init import REBOOT_SIGNAL, STOP_SIGNAL
from nxc_testing.backends.docker.streams import Console, open_shell
from nxc_testing.backends.host.forward import PortRelay
from nxc_testing.errors import (
    ConnectionLost,
    DeploymentError,
    MachineDied,
    MachineUsageError,
    Unsupported,
)
from nxc_testing.waiting import Deadline

if TYPE_CHECKING:
    from nxc_testing.backends.docker.links import LinkSwitch
    from nxc_testing.backends.docker.watch import Death

logger = logging.getLogger("nxc_testing.docker")

SIGNAL_AGAIN = 0.5
"""Seconds; a signal that comes before systemd has its handlers is lost."""

KILL_TIMEOUT = 60.0
FREEZE_ATTEMPTS = 3
NEWS_TIMEOUT = 2.0
LAST_WORDS = 0.3
"""Seconds that an ended machine's console may take to be read to its end."""


class DockerNode:
    """A machine that is a container.

    :param container: its id in the engine.
    :param container_name: its name there.
    :param name: the host's name.
    :param addresses: by network; the primary one first.
    """

    def __init__(
        self,
        engine: Engine,
        container: str,
        container_name: str,
        *,
        name: str,
        addresses: Mapping[str, str],
        links: LinkSwitch,
    ):
        self._engine, self._name, self._addresses = engine, name, dict(addresses)
        self.container, self.container_name = container, container_name
        self._links = links
        self._power = threading.Lock()
        self._boot: Boot | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._console: Console | None = None
        self._relays: list[PortRelay] = []
        self._allow_reboot = False
        self._returning = self._rebooting = False
        self._cut = False
        self._ends: frozenset[str] = frozenset()
        self._released = False

    def __repr__(self) -> str:
        return f"<DockerNode {self._name!r} {self.container_name}>"

    @property
    def name(self) -> str:
        """The host's name."""
        return self._name

    @property
    def own_system(self) -> bool:
        """True."""
        return True

    @property
    def addresses(self) -> Mapping[str, str]:
        """The IP address in each network, by the network's name."""
        return self._addresses

    @property
    def boot(self) -> Boot | None:
        """The present boot, or the last one if the machine is off; None before the first."""
        return self._boot

    @property
    def _running(self) -> Boot | None:
        boot = self._boot
        return None if boot is None or boot.ended.is_set() else boot

    def _require_boot(self) -> Boot:
        boot = self._boot
        if boot is None:
            raise MachineDied(self._name, "it was never started")
        if boot.ended.is_set():
            raise MachineDied(self._name, boot.reason)
        return boot

    # Power

    def start(self) -> None:
        """Power on; returns when PID 1 runs. Nothing happens to a machine that is on.

        :raise DeploymentError: if it does not start.
        """
        with self._power:
            if not self._running:
                self._power_on()

    def _power_on(self) -> None:
        if self._released:
            raise DeploymentError(f"{self._name}: its deployment is closed")
        if self._sink:
            with self._engine.api(f"{self._name}: the console") as api:
                self._console = Console(api, self.container, self._sink)
        boot = Boot(self._boot.number + 1 if self._boot else 1)
        # Before the start: its end may be noticed before the engine's answer is.
        self._boot, self._ends = boot, frozenset()
        try:
            with self._engine.api(f"{self._name} does not start") as api:
                api.start(self.container)
            if self._cut:
                self._switch_links()
        except BaseException as error:
            boot.end(f"it did not start: {error}")
            with suppress(DeploymentError):
                self._send("SIGKILL")
            raise

    def stop(self, timeout: float) -> bool:
        """Ask systemd to shut the machine down, and wait.

        :param timeout: seconds to wait.
        :return: whether it is off.
        """
        return self._end_by(STOP_SIGNAL, Deadline(timeout))

    def kill(self) -> None:
        """Cut the power. When it returns the machine is off.

        :raise DeploymentError: if the engine cannot end it.
        """
        if not self._end_by("SIGKILL", Deadline(KILL_TIMEOUT)):
            raise DeploymentError(f"{self._name}: still running {KILL_TIMEOUT:.0f} s after SIGKILL")

    def reboot(self, timeout: float) -> None:
        """Restart in order; returns when the new boot runs.

        :param timeout: seconds for the machine to shut down and start again.
        :raise MachineDied: if it is off.
        :raise DeploymentError: if it is not back in time.
        """
        before = self._require_boot()
        self._rebooting = True
        try:
            if not self._end_by(REBOOT_SIGNAL, Deadline(timeout)):
                raise DeploymentError(
                    f"{self._name}: boot {before.number} did not end within {timeout:.1f} s"
                )
            self.start()
        finally:
            self._rebooting = False

    def _end_by(self, signal: str, deadline: Deadline) -> bool:
        """Send a signal until the machine is off; it also ends what it may be about to start."""
        with self._power:
            self._returning = False
            boot = self._running
        while boot and not boot.ended.is_set() and not deadline.expired:
            self._send(signal)
            boot.ended.wait(deadline.limit(SIGNAL_AGAIN))
        return boot is None or boot.ended.is_set()

    def _send(self, signal: str) -> None:
        with self._engine.api(f"{self._name}: {signal}") as api:
            try:
                api.kill(self.container, signal=signal)
            except APIError as error:
                # It is not running any more: its end is being told.
                if status(error) != CONFLICT:
                    raise

    def set_allow_reboot(self, allow: bool) -> None:
        """Whether a reboot that the machine asks for itself starts it again."""
        self._allow_reboot = allow

    @property
    def reboots_by_itself(self) -> bool:
        """Whether the machine is off only because it is about to start again."""
        return self._returning or self._rebooting

    # Told by the deployment's watch

    def on_death(self, death: Death) -> None:
        """The container has ended."""
        boot = self._running
        if boot is None:
            return
        if self._console:
            self._console.drained.wait(LAST_WORDS)
        self._returning = death.reboot and self._allow_reboot and not self._rebooting
        boot.end(death.reason)
        if self._returning:
            name = f"nxc-reboot-{self._name}"
            threading.Thread(target=self._start_again, name=name, daemon=True).start()

    def on_lost(self, reason: str) -> None:
        """Nothing can be known of the container any more."""
        if boot := self._running:
            boot.end(reason)

    def _start_again(self) -> None:
        with self._power:
            try:
                if self._returning and not self._running:
                    self._power_on()
            except DeploymentError as error:
                if not self._released:
                    logger.error("%s: the reboot it asked for failed: %s", self._name, error)
            finally:
                self._returning = False

    # Shells and console

    def open_channel(self) -> Channel:
        """A new root shell, beside those already open.

        :raise MachineDied: if the machine is off.
        :raise ConnectionLost: if the engine does not give one; a frozen machine has none.
        """
        with self._power:  # A start that is under way comes first.
            boot = self._require_boot()
        try:
            with self._engine.api(f"{self._name}: a shell") as api:
                return open_shell(api, self.container, self._name)
        except DeploymentError as error:
            # It may have ended just now, and the news is on its way.
            if _is_off(error.__cause__) and boot.ended.wait(NEWS_TIMEOUT):
                raise MachineDied(self._name, boot.reason) from error
            raise ConnectionLost(str(error)) from error

    def watch_console(self, sink: Callable[[bytes], None]) -> None:
        """Send what PID 1 writes, from the first byte of each boot, to a function.

        :param sink: called on the background loop's thread.
        """
        if self._sink or self._boot:
            raise MachineUsageError(
                f"{self._name}: its console is watched once, before the first start"
            )
        self._sink = sink

    # Faults

    def freeze(self) -> None:
        """Stop every process; connections and shells stay open."""
        self._set_frozen(True)

    def thaw(self) -> None:
        """Continue."""
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        self._require_boot()
        doing = "freezing" if frozen else "thawing"
        with self._engine.api(f"{self._name}: {doing}") as api:
            for attempt in range(FREEZE_ATTEMPTS):
                try:
                    (api.pause if frozen else api.unpause)(self.container)
                except APIError:
                    if api.inspect_container(self.container)["State"]["Paused"] == frozen:
                        return
                    # runc gives up on a machine that forks faster than it freezes.
                    if attempt == FREEZE_ATTEMPTS - 1:
                        raise
                else:
                    return

    def set_link(self, up: bool) -> None:
        """Cut all its networks, or restore them. Shells and connections survive.

        It can be called while the machine is off, and holds from one boot to the next; at a
        start the networks are there for a moment before they are cut.

        :raise DeploymentError: if it cannot be done.
        """
        with self._power:
            self._cut = not up
            if self._running:
                self._switch_links()

    def _switch_links(self) -> None:
        if not self._ends:
            with self._engine.api(f"{self._name}: its links") as api:
                state = api.inspect_container(self.container)["NetworkSettings"]["Networks"]
            addresses = [network["MacAddress"] for network in state.values()]
            ends = self._links.ends(self.container, addresses)
            if len(ends) != len(self._addresses):
                raise DeploymentError(
                    f"{self._name}: {len(ends)} of its {len(self._addresses)} network devices "
                    "were found: has it changed their hardware addresses?"
                )
            self._ends = ends
        self._links.switch(self._ends, not self._cut)

    # Ports

    def published_ports(self) -> Mapping[int, int]:
        """The host's ports on 127.0.0.1 by the machine's, of those that its role publishes.

        :raise MachineDied: if it is off: a free port is given at each start.
        """
        self._require_boot()
        with self._engine.api(f"{self._name}: its ports") as api:
            ports = api.inspect_container(self.container)["NetworkSettings"]["Ports"]
        return {
            int(guest.partition("/")[0]): int(bound[0]["HostPort"])
            for guest, bound in ports.items()
            if bound
        }

    def forward_port(self, host_port: int, guest_port: int) -> None:
        """Let 127.0.0.1:host_port on the host lead to guest_port in the machine.

        It goes by the machine's first network, and so is cut with it.

        :raise Unsupported: if the engine runs on another host.
        :raise DeploymentError: if the host's port is taken.
        """
        if not self._engine.info.local:
            raise Unsupported(
                self._name, "forward_port", "docker", "the engine runs on another host"
            )
        address = next(iter(self._addresses.values()))
        try:
            self._relays.append(PortRelay(host_port, (address, guest_port)))
        except OSError as error:
            raise DeploymentError(f"{self._name}: forwarding port {host_port}: {error}") from error

    def release(self) -> None:
        """Let go of everything but the container; whoever waits for the machine is told."""
        self._released = True
        while self._relays:
            self._relays.pop().close()
        self.on_lost("its deployment was closed")
        if self._console:
            self._console.close()


def _is_off(error: BaseException | None) -> bool:
    """Whether the engine refused something because the container does not run."""
    return (
        isinstance(error, APIError)
        and status(error) in (CONFLICT, NOT_FOUND)
        and "paused" not in explanation(error)
    )
