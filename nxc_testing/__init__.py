"""NixOS test driver machines for pytest: the same tests on containers, machines and clusters.

What tests and tools use stands here; each name is loaded when it is first asked for, so that
importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nxc_testing.composition import Composition, Role, ShellMode, load
    from nxc_testing.driver import Driver, Machines
    from nxc_testing.errors import (
        BackendUnavailable,
        CommandFailed,
        CommandSucceeded,
        ConfigError,
        ConnectionLost,
        DeploymentError,
        ImageError,
        InfraError,
        LockTimeout,
        MachineDied,
        MachineError,
        MachineUsageError,
        NxcError,
        PollingConditionError,
        RequestedAssertionFailed,
        ShellLost,
        StartFailed,
        TestScriptError,
        UnitError,
        UnsafePath,
        Unsupported,
        WaitTimeout,
    )
    from nxc_testing.events import Event
    from nxc_testing.launch import Settings, open_driver
    from nxc_testing.machine import Machine
    from nxc_testing.session import Session
    from nxc_testing.shell import Result
    from nxc_testing.waiting import Deadline, Duration

__all__ = [
    "BackendUnavailable",
    "CommandFailed",
    "CommandSucceeded",
    "Composition",
    "ConfigError",
    "ConnectionLost",
    "Deadline",
    "DeploymentError",
    "Driver",
    "Duration",
    "Event",
    "ImageError",
    "InfraError",
    "LockTimeout",
    "Machine",
    "MachineDied",
    "MachineError",
    "MachineUsageError",
    "Machines",
    "NxcError",
    "PollingConditionError",
    "RequestedAssertionFailed",
    "Result",
    "Role",
    "Session",
    "Settings",
    "ShellLost",
    "ShellMode",
    "StartFailed",
    "TestScriptError",
    "UnitError",
    "UnsafePath",
    "Unsupported",
    "WaitTimeout",
    "load",
    "open_driver",
]

_HOMES = {
    "composition": ("Composition", "Role", "ShellMode", "load"),
    "driver": ("Driver", "Machines"),
    "events": ("Event",),
    "launch": ("Settings", "open_driver"),
    "machine": ("Machine",),
    "session": ("Session",),
    "shell": ("Result",),
    "waiting": ("Deadline", "Duration"),
}
"""The modules that the names come from; what is in none of them is an error of `errors`."""


def __getattr__(name: str) -> object:
    """Load a name where it is defined.

    :raise AttributeError: if it is none of `__all__`.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "errors")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What can be asked for."""
    return sorted({*globals(), *__all__})
