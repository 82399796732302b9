"""The power of a machine whose init this host can signal: what its ends and restarts mean."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum

from nxc_testing.backends.base import Boot
from nxc_testing.errors import DeploymentError, MachineDied, MachineUsageError
from nxc_testing.waiting import Deadline

logger = logging.getLogger("nxc_testing.host")

SIGNAL_AGAIN = 0.5
"""Seconds; a request that comes before the init listens is lost."""

KILL_TIMEOUT = 60.0


class Request(Enum):
    """What a machine is asked to do, or made to."""

    POWEROFF = "shutting down"
    REBOOT = "rebooting"
    KILL = "killing"


class PoweredNode(ABC):
    """The part of a node that is about its boots. All methods may be called from any thread.

    :param name: the host's name.
    :param addresses: by network; the primary one first.
    """

    def __init__(self, name: str, addresses: Mapping[str, str]):
        self._name, self._addresses = name, dict(addresses)
        self._power = threading.Lock()
        self._boot: Boot | None = None
        self._sink: Callable[[bytes], None] = lambda _: None
        self._watched = self._released = False
        self._allow_reboot = self._returning = self._rebooting = False

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

    @abstractmethod
    def _switch_on(self, boot: Boot) -> None:
        """Make the machine run; its end is told by `_ended`, perhaps before this returns.

        :raise DeploymentError: if it does not start; what of it runs is killed then.
        """

    @abstractmethod
    def _request(self, request: Request) -> None:
        """Ask the machine for something; nothing happens if it is off."""

    def watch_console(self, sink: Callable[[bytes], None]) -> None:
        """Send what the console prints, from the first byte of each boot, to a function.

        :param sink: called on the background loop's thread.
        """
        if self._watched or self._boot:
            raise MachineUsageError(
                f"{self._name}: its console is watched once, before the first start"
            )
        self._watched, self._sink = True, sink

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
        boot = Boot(self._boot.number + 1 if self._boot else 1)
        # Before the start: its end may be noticed before that returns.
        self._boot = boot
        try:
            self._switch_on(boot)
        except BaseException as error:
            boot.end(f"it did not start: {error}")
            with suppress(DeploymentError):
                self._request(Request.KILL)
            raise

    def stop(self, timeout: float) -> bool:
        """Ask the machine to shut down in order, and wait.

        :param timeout: seconds to wait.
        :return: whether it is off.
        """
        return self._end_by(Request.POWEROFF, Deadline(timeout))

    def kill(self) -> None:
        """Cut the power. When it returns the machine is off.

        :raise DeploymentError: if it does not end.
        """
        if not self._end_by(Request.KILL, Deadline(KILL_TIMEOUT)):
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
            if not self._end_by(Request.REBOOT, Deadline(timeout)):
                raise DeploymentError(
                    f"{self._name}: boot {before.number} did not end within {timeout:.1f} s"
                )
            self.start()
        finally:
            self._rebooting = False

    def _end_by(self, request: Request, deadline: Deadline) -> bool:
        """Ask until the machine is off; it also ends what it may be about to start."""
        with self._power:
            self._returning = False
            boot = self._running
        while boot and not boot.ended.is_set() and not deadline.expired:
            self._request(request)
            boot.ended.wait(deadline.limit(SIGNAL_AGAIN))
        return boot is None or boot.ended.is_set()

    def set_allow_reboot(self, allow: bool) -> None:
        """Whether a reboot that the machine asks for itself starts it again."""
        self._allow_reboot = allow

    @property
    def reboots_by_itself(self) -> bool:
        """Whether the machine is off only because it is about to start again."""
        return self._returning or self._rebooting

    def _ended(self, boot: Boot, reason: str, *, wants_reboot: bool = False) -> None:
        """Tell everybody that a boot has ended.

        :param wants_reboot: whether the machine asked to be started again.
        """
        if boot is not self._running:
            return
        self._returning = wants_reboot and self._allow_reboot and not self._rebooting
        boot.end(reason)
        if self._returning:
            name = f"nxc-reboot-{self._name}"
            threading.Thread(target=self._start_again, name=name, daemon=True).start()

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
