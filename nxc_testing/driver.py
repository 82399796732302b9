"""The driver: a composition's machines, the testScript's globals, and what must be released."""

from __future__ import annotations

import json
import os
import pathlib
import re
import time
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import SupportsIndex, overload

from nxc_testing.backends.base import Deployment
from nxc_testing.compat import Debug, Vlan, make_command
from nxc_testing.composition.model import Composition, ShellMode
from nxc_testing.composition.names import python_name
from nxc_testing.errors import (
    ConfigError,
    NxcError,
    RequestedAssertionFailed,
    StartFailed,
    Unsupported,
)
from nxc_testing.logs import Log, section
from nxc_testing.machine import Directories, Machine
from nxc_testing.polling import PollingCondition
from nxc_testing.session import Session
from nxc_testing.waiting import DEFAULT_TIMEOUT, Deadline, Duration, pause_after

RETRY_PAUSE = 1.0
"""Seconds between two tries at most: upstream's pause."""


class Asserts(unittest.TestCase):
    """The global `t`: every `assertX` of unittest, failing as the driver's own checks do."""

    failureException = RequestedAssertionFailed
    maxDiff = None


class Machines(list[Machine]):
    """All machines, sorted by name; `machines["node1"]` finds one by its name or alias."""

    @overload
    def __getitem__(self, key: SupportsIndex) -> Machine: ...
    @overload
    def __getitem__(self, key: slice) -> list[Machine]: ...
    @overload
    def __getitem__(self, key: str) -> Machine: ...
    def __getitem__(self, key: str | SupportsIndex | slice) -> Machine | list[Machine]:
        """A machine by its name, its alias or its place.

        :raise KeyError: if there is none of that name.
        """
        if not isinstance(key, str):
            return super().__getitem__(key)
        for machine in self:
            instance = machine.instance
            names = (instance.name, *instance.aliases)
            if key in names or key in map(python_name, names):
                return machine
        known = ", ".join(machine.name for machine in self)
        raise KeyError(f"no machine {key!r}; there are {known}")


class Driver:
    """Owns a deployment's machines and hands them to a test.

    :param composition: what was deployed.
    :param deployment: owned from now on.
    :param keep: leave the machines at the end, for a person to look at.
    :ivar machines: sorted by name.
    :ivar deployment: as the backend made it.
    :ivar subtest_reporter: wraps the body of every subtest; pytest's subtests come in here.
    """

    def __init__(
        self,
        composition: Composition,
        deployment: Deployment,
        session: Session,
        backend: str,
        *,
        mode: ShellMode | None = None,
        keep: bool = False,
        out_dir: pathlib.Path | None = None,
    ):
        self.composition, self.session, self.backend = composition, session, backend
        self.deployment, self._keep = deployment, keep
        script = composition.test_script
        mode = mode or (script.shell if script else ShellMode.STRICT)
        directories = Directories(out_dir or pathlib.Path.cwd(), session.directory)
        nodes = {node.name: node for node in deployment.nodes}
        self.machines = Machines(
            Machine(
                nodes[instance.name],
                instance,
                instance.role.backend or backend,
                mode=mode,
                events=session.events,
                directories=directories,
            )
            for instance in sorted(composition.instances(), key=lambda i: i.name)
        )
        self.log = Log(session.events)
        self.t = Asserts()
        self.vlans = [
            Vlan(number, network.name, backend)
            for number, network in enumerate(composition.networks, 1)
        ]
        self.subtest_reporter: Callable[[str], AbstractContextManager[None]] | None = None
        self._conditions: list[PollingCondition] = []
        self._closed = False
        for machine in self.machines:
            machine.callbacks.append(self._check_conditions)

    def machine(self, name: str) -> Machine:
        """A machine by its name or alias.

        :raise ConfigError: if there is none.
        """
        try:
            return self.machines[name]
        except KeyError as error:
            raise ConfigError(str(error.args[0]), file=self.composition.source) from None

    @property
    def commands_run(self) -> int:
        """How many commands were run on all machines so far; a wait's looking counts not."""
        return sum(machine.connection.commands_run for machine in self.machines)

    def symbols(self) -> dict[str, object]:
        """The globals of a testScript (NixOS test driver, `Driver.test_symbols`)."""
        symbols: dict[str, object] = {
            "BaseMachine": Machine,
            "Machine": Machine,
            "NspawnMachine": Machine,
            "QemuMachine": Machine,
            "composition": self.composition,
            "create_machine": self.create_machine,
            "debug": Debug(self.log),
            "driver": self,
            "dump_machine_ssh": self.dump_machine_ssh,
            "join_all": self.join_all,
            "json": json,
            "log": self.log,
            "machines": self.machines,
            "machines_nspawn": self._machines_on("nspawn"),
            "machines_qemu": self._machines_on("qemu"),
            "make_command": make_command,
            "os": os,
            "pathlib": pathlib,
            "polling_condition": self.polling_condition,
            "re": re,
            "retry": self.retry,
            "run_tests": self.run_tests,
            "serial_stdout_off": self.serial_stdout_off,
            "serial_stdout_on": self.serial_stdout_on,
            "start_all": self.start_all,
            "subtest": self.subtest,
            "t": self.t,
            "test_script": self.test_script,
            "time": time,
            "vlans": self.vlans,
            **{f"vlan{vlan.nr}": vlan for vlan in self.vlans},
        }
        for machine in self.machines:
            for name in (*machine.instance.aliases, machine.name):
                symbols[python_name(name)] = machine
        if len(self.machines) == 1:
            symbols.setdefault("machine", self.machines[0])
        return symbols

    def start_all(self) -> None:
        """Start all machines side by side; returns before they have booted.

        :raise StartFailed: naming every machine that did not start, and why.
        """
        errors = side_by_side(lambda machine: machine.start(), self.machines)
        if errors:
            raise StartFailed(errors) from next(iter(errors.values()))

    def join_all(self, timeout: Duration | None = None) -> None:
        """Wait until all machines are off.

        :param timeout: for all together.
        """
        deadline = Deadline(timeout)
        for machine in self.machines:
            machine.wait_for_shutdown(deadline.remaining())

    @contextmanager
    def subtest(self, name: str) -> Iterator[None]:
        """A named part of the test, with an outcome of its own."""
        __tracebackhide__ = True
        report = self.subtest_reporter(name) if self.subtest_reporter else nullcontext()
        with report, section(self.session.events, "subtest", name):
            yield

    def retry(
        self,
        fn: Callable[[bool], bool],
        timeout_seconds: Duration | None = None,
        timeout: Duration | None = None,
    ) -> None:
        """Call a function until it is true; one last time, told so, at the end.

        :param fn: called with whether this is the last try; at first often, then every second.
        :param timeout: 15 minutes by default.
        :raise RequestedAssertionFailed: if it never was.
        """
        __tracebackhide__ = True
        given = timeout if timeout is not None else timeout_seconds
        deadline = Deadline(DEFAULT_TIMEOUT if given is None else given)
        while not deadline.expired:
            if fn(False):
                return
            pause = min(RETRY_PAUSE, pause_after(deadline.elapsed()))
            time.sleep(deadline.limit(pause) or 0)
        if not fn(True):
            raise RequestedAssertionFailed(
                f"action timed out after {deadline.elapsed():.2f} seconds"
                f" (timeout={deadline.total})"
            )

    @overload
    def polling_condition(self, fun_: Callable[[], bool | None]) -> PollingCondition: ...
    @overload
    def polling_condition(
        self,
        fun_: None = None,
        *,
        seconds_interval: Duration | None = None,
        interval: Duration | None = None,
        description: str | None = None,
    ) -> Callable[[Callable[[], bool | None]], PollingCondition]: ...
    def polling_condition(
        self,
        fun_: Callable[[], bool | None] | None = None,
        *,
        seconds_interval: Duration | None = None,
        interval: Duration | None = None,
        description: str | None = None,
    ) -> PollingCondition | Callable[[Callable[[], bool | None]], PollingCondition]:
        """Make a condition that must hold while a `with` block of it runs.

        It is looked at before every command inside the block, if the last look is older than
        the interval (2 s). False, or an exception, fails the block; None counts as true.

        :param description: for the error; by default the docstring, or the name.
        """

        def make(function: Callable[[], bool | None]) -> PollingCondition:
            every = interval if interval is not None else seconds_interval
            return PollingCondition(function, self._conditions, every, description)

        return make if fun_ is None else make(fun_)

    def create_machine(
        self,
        start_command: str | Mapping[str, object],
        *,
        name: str | None = None,
        keep_machine_state: bool = False,
        keep_vm_state: bool = False,
    ) -> Machine:
        """Make a machine from a start script.

        :raise Unsupported: machines come from the composition, on every backend so far.
        """
        why = "machines come from the composition; a start script needs the QEMU backend"
        raise Unsupported("driver", "create_machine", self.backend, why)

    def test_script(self) -> None:
        """Read the composition's testScript as it is now, and run it.

        :raise ConfigError: if the composition has none.
        :raise BaseException: what it raises.
        """
        from nxc_testing import testscript  # noqa: PLC0415 (only for who asks for it)

        script = self.composition.test_script
        if script is None:
            raise ConfigError(
                "the composition has no testScript",
                file=self.composition.source,
                hint='name one: file = "test_script.py" in the table [test_script]',
            )
        testscript.run(script, self)

    def run_tests(self) -> None:
        """`test_script`; a run's time limit is the caller's."""
        self.test_script()

    def serial_stdout_on(self) -> None:
        """Upstream's switch for consoles; here they are always in the event log."""
        self.log.print_serial_logs(True)

    def serial_stdout_off(self) -> None:
        """Upstream's switch for consoles; here they are always in the event log."""
        self.log.print_serial_logs(False)

    def dump_machine_ssh(self) -> None:
        """Log how to reach the machines by hand; upstream does it by SSH."""
        for access in self.deployment.access():
            self.log.info(f"{access.machine}: {access.command}")

    def keep_notice(self) -> str:
        """How to reach the machines by hand, and how to remove them."""
        lines = [f"{access.machine}: {access.command}" for access in self.deployment.access()]
        return "\n".join([*lines, f"remove: nxc-test reap {self.session.id}"])

    def close(self) -> None:
        """Release everything, or leave it where it is to be kept; may be called twice.

        :raise NxcError: if something could not be released.
        """
        if self._closed:
            return
        self._closed = True
        for machine in self.machines:
            machine.connection.close()
        if not self._keep:
            self.deployment.close()

    def __enter__(self) -> Driver:
        """Nothing more than the driver itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release everything."""
        self.close()

    def _machines_on(self, backend: str) -> list[Machine]:
        return [machine for machine in self.machines if machine.backend == backend]

    def _check_conditions(self) -> None:
        for condition in list(self._conditions):
            condition.check_if_due()


def side_by_side(
    action: Callable[[Machine], object], machines: Sequence[Machine]
) -> dict[str, Exception]:
    """Do something on many machines at once.

    :return: what went wrong, by machine.
    """
    errors: dict[str, Exception] = {}
    with ThreadPoolExecutor(max(1, len(machines)), "nxc-all") as pool:
        for machine, future in [(m, pool.submit(action, m)) for m in machines]:
            if error := future.exception():
                if not isinstance(error, NxcError):
                    raise error
                errors[machine.name] = error
    return errors
