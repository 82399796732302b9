"""QEMU's machine protocol, as upstream's scripts use it: `machine.qmp_client`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nxc_testing.backends.base import QemuMonitor
from nxc_testing.compat import QMPAPIError
from nxc_testing.errors import DeploymentError
from nxc_testing.waiting import Deadline, Duration


class QmpClient:
    """Sends commands to one QEMU, and takes its events.

    :param monitor: of the machine's present boot.
    """

    def __init__(self, monitor: QemuMonitor):
        self._monitor = monitor

    def send(self, command: str, args: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Run a command.

        :return: what it returns, under the key `return`.
        :raise QMPAPIError: if QEMU refuses, or is gone.
        """
        try:
            return {"return": self._monitor.execute(command, args)}
        except DeploymentError as error:
            raise QMPAPIError(str(error)) from error

    def wait_for_event(self, timeout: Duration = 10) -> dict[str, Any]:
        """Wait for the next event.

        :raise TimeoutError: if none comes.
        """
        deadline = Deadline(timeout)
        event = self._monitor.wait_for_event(lambda _: True, deadline, lambda: False)
        if event is None:
            raise TimeoutError(f"QEMU told no event within {deadline.elapsed():.1f} s")
        return event

    def events(self, timeout: Duration = 10) -> Iterator[dict[str, Any]]:
        """The events that come, until none does for some time.

        :param timeout: for each.
        """
        while True:
            try:
                yield self.wait_for_event(timeout)
            except TimeoutError:
                return
