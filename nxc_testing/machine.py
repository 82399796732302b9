"""The machine, as a test sees it: the NixOS test driver's methods, one meaning on every backend.

What a machine is asked most stands here. Its waits are in `waits.py`, its power and its faults in
`power.py`, and what only a virtual machine has in `hardware.py`.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nxc_testing import files, units, x11
from nxc_testing.backends.base import Node
from nxc_testing.composition.model import Instance, ShellMode
from nxc_testing.errors import CommandFailed, CommandSucceeded, MachineUsageError
from nxc_testing.events import Events, Logged
from nxc_testing.hardware import Hardware
from nxc_testing.logs import section
from nxc_testing.shell import Result
from nxc_testing.waiting import DEFAULT_TIMEOUT, Duration, seconds

if TYPE_CHECKING:
    from nxc_testing.interactive import Interaction


LAST_LINES = 10_000
"""Lines of the console that are held for a script which may never take them out."""


@dataclass(frozen=True, slots=True)
class Directories:
    """Where a machine's files on the host are.

    :ivar out: where `copy_from_machine` puts things.
    :ivar tmp: the run's own directory.
    """

    out: Path
    tmp: Path


class Machine(Hardware):
    """One machine of a deployment.

    Methods that upstream's driver has carry its names and meaning (NixOS manual, "Machine
    objects"); every duration may be a number of seconds or a timedelta. A machine starts at its
    first command. One that dies by itself is not started again behind the test's back.

    :param node: the backend's side of it.
    :param instance: what it is in the composition.
    :param backend: the backend's name.
    :param mode: how its commands run.
    :ivar last_lines: the console's lines, for a script that takes them out itself.
    """

    def __init__(
        self,
        node: Node,
        instance: Instance,
        backend: str,
        *,
        mode: ShellMode,
        events: Events,
        directories: Directories,
    ):
        self._directories = directories
        self.last_lines: queue.Queue[str] = queue.Queue()
        super().__init__(node, instance, backend, mode=mode, events=events)

    def __repr__(self) -> str:
        return f"<Machine {self.name!r} on {self.backend}>"

    # --- commands

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: Duration | None = DEFAULT_TIMEOUT,
    ) -> tuple[int, str]:
        """Run a command.

        It runs under bash with `set -euo pipefail` (or as nixos-compose does, where the
        composition says `shell = "nxc"`), its stdin is /dev/null, and it is over when its
        process has ended and its stdout is closed: redirect the output of background jobs.

        :param check_return: false gives -1 for the status.
        :param check_output: false does not wait: the command goes on in the background, its
            output goes to the event log only, and (-2, "") is returned.
        :param timeout: then the command's whole process tree ends and the status is 124.
        :return: its status, and its stdout with U+FFFD for what is not UTF-8.
        :raise MachineDied: if the machine ended meanwhile.
        """
        if not check_output:
            self._run_in_background(command, seconds(timeout))
            return -2, ""
        result = self.run(command, timeout)
        return (result.status if check_return else -1), result.stdout.decode(errors="replace")

    def run(self, command: str, timeout: Duration | None = DEFAULT_TIMEOUT) -> Result:
        """Run a command and get everything there is: status, both outputs as bytes, duration.

        :raise MachineDied: if the machine ended meanwhile.
        """
        limit = seconds(timeout)
        self.run_callbacks()
        self._ensure_started()
        return self.connection.run(command, limit)

    def succeed(self, *commands: str, timeout: Duration | None = None) -> str:
        """Run commands one after the other; each must succeed.

        :param timeout: for each; by default there is none, as upstream.
        :return: their stdout, joined.
        :raise CommandFailed: at the first that does not; it carries both outputs.
        """
        __tracebackhide__ = True
        output = ""
        for command in commands:
            result = self.run(command, timeout)
            out, err = _texts(result)
            if result.status != 0:
                limit = seconds(timeout) if result.timed_out else None
                raise CommandFailed(self.name, command, result.status, out, err, timeout=limit)
            output += out
        return output

    def fail(self, *commands: str, timeout: Duration | None = None) -> str:
        """Run commands one after the other; each must fail, if only by its timeout.

        :return: their stdout, joined.
        :raise CommandSucceeded: at the first that does not.
        """
        __tracebackhide__ = True
        output = ""
        for command in commands:
            result = self.run(command, timeout)
            out, err = _texts(result)
            if result.status == 0:
                raise CommandSucceeded(self.name, command, out, err)
            output += out
        return output

    def sleep(self, secs: Duration | None = None, duration: Duration | None = None) -> None:
        """Let the machine sleep; the test notices at once if it dies meanwhile."""
        length = seconds(secs if secs is not None else duration)
        if length is None:
            raise MachineUsageError(f"{self.name}: sleep() needs a duration that ends")
        self.succeed(f"sleep {length}")

    def interact(
        self, command: str, timeout: Duration = 30, *, rows: int = 24, columns: int = 80
    ) -> Interaction:
        """Start a program on a terminal in the machine, to be driven by pexpect.

        :param command: run by bash, in the environment that every command has.
        :param timeout: of every `expect` that names none.
        :return: a pexpect spawn; use it in a `with` block, which ends the program.
        :raise Unsupported: if the machine has no `script` to make the terminal with.
        """
        from nxc_testing.interactive import interact  # noqa: PLC0415 - pexpect only when used

        self.run_callbacks()
        self.connect()
        limit = seconds(timeout)
        return interact(self, command, DEFAULT_TIMEOUT if limit is None else limit, rows, columns)

    # --- systemd

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """Run systemctl with the given arguments; never fails by itself.

        :param user: ask this user's own systemd.
        """
        return self.execute(units.systemctl(q, user))

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """`systemctl start`; never fails by itself."""
        return self.systemctl(f"start {jobname}", user)

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """`systemctl stop`; never fails by itself."""
        return self.systemctl(f"stop {jobname}", user)

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """All properties of a unit, as `systemctl show` gives them."""
        return units.show(self, unit, user)

    def get_unit_property(self, unit: str, property: str, user: str | None = None) -> str:
        """One property of a unit.

        :raise MachineUsageError: if units have no such property.
        """
        value = units.show(self, unit, user, properties=property).get(property)
        if value is None:
            raise MachineUsageError(f"{self.name}: unit {unit!r} has no property {property!r}")
        return value

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        """Demand a unit's ActiveState now.

        :raise UnitError: if it is another.
        """
        __tracebackhide__ = True
        units.require_state(self, unit, require_state, None)

    # --- files

    def copy_from_host(self, source: str | os.PathLike[str], target: str) -> None:
        """Copy a file or directory of the host into the machine, as `cp -r` would."""
        self.connect()
        files.push(self, Path(source), str(target))

    def copy_from_host_via_shell(self, source: str | os.PathLike[str], target: str) -> None:
        """`copy_from_host`; upstream's limit of about 96 KiB does not apply."""
        self.copy_from_host(source, target)

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        """Copy a file or directory of the machine into `out_dir`/`target_dir`."""
        self.connect()
        files.pull(self, source, self.out_dir / target_dir / Path(source).name)

    def copy_from_vm(self, source: str, target_dir: str = "") -> None:
        """`copy_from_machine`, by its name before 26.05."""
        self.copy_from_machine(source, target_dir)

    def transfer(
        self,
        command: str,
        *,
        stdin: Iterator[bytes] | None = None,
        sink: Callable[[bytes], Any] | None = None,
    ) -> Result:
        """Run a command with data going in or out; what file copies are made of.

        :param stdin: what it reads.
        :param sink: takes its stdout on the background thread.
        """
        self._ensure_started()
        return self.connection.run(command, None, stdin=stdin, sink=sink)

    # --- windows, console and log

    def get_window_names(self) -> list[str]:
        """The titles of the windows on the machine's DISPLAY.

        :raise Unsupported: if the machine has no `xwininfo` to ask with.
        """
        return x11.window_names(self)

    def get_console_log(self) -> str:
        """What the console printed since the machine started."""
        return self._console.text

    def log(self, msg: str) -> None:
        """Put a line into the test's log."""
        self._events.emit(Logged(machine=self.name, message=str(msg)))

    def log_serial(self, msg: str) -> None:
        """Put a line into the log as if the console had printed it."""
        self._console.feed(msg.encode() + b"\n")

    def nested(self, msg: str, attrs: dict[str, str] | None = None) -> AbstractContextManager[None]:
        """A named part of the log."""
        return section(self._events, "nested", f"{self.name}: {msg}")

    # --- where things are

    @property
    def out_dir(self) -> Path:
        """Where `copy_from_machine` puts things."""
        return self._directories.out

    @property
    def tmp_dir(self) -> Path:
        """The run's own directory on the host."""
        return self._directories.tmp

    @property
    def state_dir(self) -> Path:
        """The machine's own directory on the host; made at first use, gone with the run."""
        path = self.tmp_dir / f"vm-state-{self.name}"
        path.mkdir(exist_ok=True, mode=0o700)
        return path

    def cleanup_statedir(self) -> None:
        """Nothing is left to do: the state directory goes with the run."""

    # --- own

    def _run_in_background(self, command: str, timeout: float | None) -> None:
        self.run_callbacks()
        self.connect()

        def run() -> None:
            try:
                self.connection.run(command, timeout, sink=lambda _: None, shown=True)
            except Exception as error:
                self.logger.warning(f"{self.name}: background command `{command}`: {error}")

        threading.Thread(target=run, name=f"nxc-{self.name}-background", daemon=True).start()

    def _on_console(self, text: str) -> None:
        super()._on_console(text)
        for line in text.splitlines():
            self.last_lines.put(line)
            if self.last_lines.qsize() > LAST_LINES:
                self.last_lines.get_nowait()


def _texts(result: Result) -> tuple[str, str]:
    return result.stdout.decode(errors="replace"), result.stderr.decode(errors="replace")
