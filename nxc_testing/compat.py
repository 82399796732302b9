"""What scripts written for other drivers, and for older ones, expect to find."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from nxc_testing.errors import (
    MachineError,
    PollingConditionError,
    RequestedAssertionFailed,
    Unsupported,
)
from nxc_testing.logs import Log

if TYPE_CHECKING:
    from nxc_testing.driver import Driver

UPSTREAM = "test_driver"
"""The package of the NixOS test driver."""


class QMPAPIError(MachineError):
    """QEMU refused a command of its machine protocol; by upstream's name."""


class Debug:
    """The global `debug` of a testScript, as upstream has it where its debug hook is off."""

    def __init__(self, log: Log):
        self._log = log

    def breakpoint(self, host: str = "127.0.0.1", port: int = 4444) -> None:
        """Go on, and say what does stop a test here."""
        self._log.warning("debug.breakpoint() goes on: use Python's breakpoint(), or pytest --pdb")


class Vlan:
    """A network of the composition, where a script asks for one of upstream's VLANs.

    :ivar nr: 1 for the first network.
    :ivar name: the network's name.
    """

    def __init__(self, nr: int, name: str, backend: str):
        self.nr, self.name, self._backend = nr, name, backend

    def __repr__(self) -> str:
        return f"<Vlan {self.nr} {self.name!r}>"

    def stop(self) -> NoReturn:
        """Upstream ends the VLAN's switch."""
        self._refuse("stop")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (there is none)
            if name in {"socket_dir", "pid", "process", "fd"}:
                self._refuse(name)
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def _refuse(self, what: str) -> NoReturn:
        why = "no switch of its own stands behind a network"
        raise Unsupported(f"vlan{self.nr}", what, self._backend, why)


def make_command(args: Iterable[object]) -> str:
    """Join words into a command line that keeps them as they are.

    :param args: the words; `str` is taken of each.
    """
    return shlex.join(map(str, args))


@contextmanager
def upstream_modules(driver: Driver) -> Iterator[None]:
    """Let a script import from upstream's package `test_driver` what this one has for it.

    Only inside the block: a user's own modules of that name are as before after it.
    """
    ours = _stand_ins(driver)
    before = {name: module for name, module in sys.modules.items() if _is_upstream(name)}
    _remove_upstream()
    sys.modules.update(ours)
    try:
        yield
    finally:
        _remove_upstream()
        sys.modules.update(before)


def _stand_ins(driver: Driver) -> dict[str, ModuleType]:
    """Upstream's modules by name, with what stands for their content."""
    from nxc_testing.driver import Driver  # noqa: PLC0415 (it imports this module)
    from nxc_testing.machine import Machine  # noqa: PLC0415 (likewise)
    from nxc_testing.polling import PollingCondition  # noqa: PLC0415 (likewise)

    machines = dict.fromkeys(("BaseMachine", "Machine", "NspawnMachine", "QemuMachine"), Machine)
    contents: dict[str, dict[str, object]] = {
        "": {},
        ".debug": {"Debug": Debug},
        ".driver": {"Driver": Driver},
        ".errors": {
            "MachineError": MachineError,
            "RequestedAssertionFailed": RequestedAssertionFailed,
        },
        ".logger": {"AbstractLogger": Log, "CompositeLogger": Log, "rootlog": driver.log},
        ".machine": {**machines, "make_command": make_command, "retry": driver.retry},
        ".machine.qmp": {"QMPAPIError": QMPAPIError},
        ".polling_condition": {
            "PollingCondition": PollingCondition,
            "PollingConditionError": PollingConditionError,
        },
        ".vlan": {"VLan": Vlan},
    }
    modules = {}
    for suffix, content in contents.items():
        name = UPSTREAM + suffix
        module = modules[name] = ModuleType(name, "What nxc_testing has for upstream's module.")
        module.__path__ = []
        vars(module).update(content)
        if suffix:
            parent, _, child = name.rpartition(".")
            setattr(modules[parent], child, module)
    return modules


def _is_upstream(name: str) -> bool:
    return name == UPSTREAM or name.startswith(f"{UPSTREAM}.")


def _remove_upstream() -> None:
    for name in list(sys.modules):
        if _is_upstream(name):
            del sys.modules[name]
