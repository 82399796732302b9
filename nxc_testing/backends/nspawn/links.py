"""A machine's links to its networks, by whom they are made: by us, or by a start script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nxc_testing.backends.host.switch import Port, Switch


class MachineLinks(Protocol):
    """All links of one machine."""

    def prepare(self, directory: Path, *, up: bool) -> None:
        """What must be there before a boot.

        :param directory: the machine's.
        :param up: whether they carry anything from the first moment on, where that can be told.
        """

    def switch(self, up: bool) -> None:
        """Put them up or down while the machine runs.

        :raise DeploymentError: if that cannot be done.
        """

    def remove(self) -> None:
        """Take away what a boot has left of them."""


class OwnLinks:
    """Links that `launch.sh` makes."""

    def __init__(self, switch: Switch, ports: Sequence[Port]):
        self._switch, self._ports = switch, ports

    def prepare(self, directory: Path, *, up: bool) -> None:
        """Write down what `launch.sh` tells ip(8)."""
        inside, here = self._switch.plugging(self._ports, up=up)
        (directory / "links").write_text(inside)
        (directory / "ports").write_text(here)

    def switch(self, up: bool) -> None:
        """Put them up or down while the machine runs."""
        self._switch.switch([port.peer for port in self._ports], up)

    def remove(self) -> None:
        """Take away what a boot has left of them."""
        self._switch.unplug([port.peer for port in self._ports])


class ScriptLinks:
    """Links that a start script makes: their ends in the switch are called `MACHINE-DEVICE`."""

    def __init__(self, switch: Switch, machine: str):
        self._switch, self._machine = switch, machine

    @property
    def _ends(self) -> list[str]:
        return [name for name in self._switch.devices() if name.startswith(f"{self._machine}-")]

    def prepare(self, directory: Path, *, up: bool) -> None:
        """Nothing: the script does."""

    def switch(self, up: bool) -> None:
        """Put them up or down while the machine runs."""
        self._switch.switch(self._ends, up)

    def remove(self) -> None:
        """Take away what a boot has left of them."""
        self._switch.unplug(self._ends)
