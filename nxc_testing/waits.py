"""How a machine waits: one loop for everything that is waited for, and what there is to wait for.

Every wait ends at its deadline, looks often at first and more rarely later, notices at once when
the machine dies, and says on failure what it saw instead.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable

from nxc_testing import ports, units, x11
from nxc_testing.backends.base import Node
from nxc_testing.composition.model import Instance, ShellMode
from nxc_testing.errors import MachineDied, NxcError, WaitTimeout, outputs, shortened, tail
from nxc_testing.events import Events
from nxc_testing.logs import waiting
from nxc_testing.power import Power
from nxc_testing.shell import Result
from nxc_testing.waiting import DEFAULT_TIMEOUT, Deadline, Duration, poll

LOOK_TIMEOUT = 60.0
"""Seconds for a look that belongs to no wait."""

EVIDENCE_TIMEOUT = 5.0


class Waits(Power):
    """A machine's waits.

    :ivar callbacks: called before every command and every look of a wait; polling conditions
        live here.
    """

    def __init__(
        self, node: Node, instance: Instance, backend: str, *, mode: ShellMode, events: Events
    ):
        super().__init__(node, instance, backend, mode=mode, events=events)
        self.callbacks: list[Callable[[], None]] = []
        self._calling = threading.local()

    def wait(
        self,
        what: str,
        look: Callable[[Deadline], bool],
        timeout: Duration | None,
        *,
        evidence: Callable[[], str] | None = None,
    ) -> None:
        """Wait for anything about this machine; all its waits are this one.

        :param what: for the error and the log.
        :param look: true ends the wait.
        :param evidence: asked at the deadline for what was seen instead.
        :raise WaitTimeout: at the deadline.
        :raise MachineDied: as soon as the machine ends, unless it only reboots, as it may.
        """
        __tracebackhide__ = True
        deadline = Deadline(timeout)
        with waiting(self._events, self.name, what, deadline):

            def once(deadline: Deadline) -> bool:
                return self._look_once(what, look, deadline)

            if not poll(once, deadline, interrupted=self._off):
                seen = _gathered(evidence) if evidence else ""
                raise WaitTimeout(self.name, what, deadline.elapsed(), seen)

    def look(self, command: str, deadline: Deadline | None = None) -> Result:
        """Run a command that only looks: it is left out of the log and counts as no step.

        :param deadline: bounds it; a minute without one.
        """
        self._ensure_started()
        limit = deadline.look() if deadline else LOOK_TIMEOUT
        return self.connection.run(command, limit, quiet=True)

    def run_callbacks(self) -> None:
        """Call the callbacks, as happens before every command; not those of a callback."""
        if getattr(self._calling, "now", False):
            return
        self._calling.now = True
        try:
            for callback in self.callbacks:
                callback()
        finally:
            self._calling.now = False

    def wait_until_succeeds(
        self,
        command: str,
        timeout: Duration | None = DEFAULT_TIMEOUT,
        attempt_timeout: Duration | None = None,
    ) -> str:
        """Run a command again and again until it succeeds.

        :param timeout: for all attempts together.
        :param attempt_timeout: for each; never more than what is left of the whole.
        :return: the stdout of the attempt that succeeded.
        :raise WaitTimeout: with the last attempt's status and outputs.
        """
        __tracebackhide__ = True
        return self._wait_for_status(command, timeout, attempt_timeout, succeeds=True)

    def wait_until_fails(
        self,
        command: str,
        timeout: Duration | None = DEFAULT_TIMEOUT,
        attempt_timeout: Duration | None = None,
    ) -> str:
        """Run a command again and again until it fails; the opposite of `wait_until_succeeds`."""
        __tracebackhide__ = True
        return self._wait_for_status(command, timeout, attempt_timeout, succeeds=False)

    def wait_for_unit(
        self, unit: str, user: str | None = None, timeout: Duration | None = DEFAULT_TIMEOUT
    ) -> None:
        """Wait until a systemd unit is active.

        :param user: ask this user's own systemd.
        :raise UnitError: at once, if it failed or nothing will start it; with its state, its
            result and the end of its journal.
        :raise WaitTimeout: at the deadline, with the same.
        """
        __tracebackhide__ = True
        units.wait_for_state(self, unit, "active", user, timeout)

    def wait_for_job(self, jobname: str) -> None:
        """`wait_for_unit`, by its name of 2020."""
        __tracebackhide__ = True
        self.wait_for_unit(jobname)

    def wait_for_unit_active_state(
        self,
        unit: str,
        state: str = "active",
        user: str | None = None,
        timeout: Duration | None = DEFAULT_TIMEOUT,
    ) -> None:
        """Wait until a unit's ActiveState is the given one."""
        __tracebackhide__ = True
        units.wait_for_state(self, unit, state, user, timeout)

    def wait_for_file(self, filename: str, timeout: Duration | None = DEFAULT_TIMEOUT) -> None:
        """Wait until a file exists. The name is not quoted: patterns and variables expand.

        :raise WaitTimeout: with what is in its directory.
        """
        __tracebackhide__ = True
        folder = os.path.dirname(filename) or "."
        self.wait(
            f"file {filename}",
            lambda deadline: self.look(f"test -e {filename}", deadline).status == 0,
            timeout,
            evidence=lambda: self.seen_by(f"ls -la {folder} 2>&1"),
        )

    def wait_for_open_port(
        self, port: int, addr: str = "localhost", timeout: Duration | None = DEFAULT_TIMEOUT
    ) -> None:
        """Wait until something listens on a TCP port, seen from the machine.

        :raise WaitTimeout: with who listens where.
        """
        __tracebackhide__ = True
        ports.wait_for_port(self, port, addr, timeout, is_open=True)

    def wait_for_closed_port(
        self, port: int, addr: str = "localhost", timeout: Duration | None = DEFAULT_TIMEOUT
    ) -> None:
        """Wait until nothing answers on a TCP port, seen from the machine.

        :raise WaitTimeout: with who listens where.
        """
        __tracebackhide__ = True
        ports.wait_for_port(self, port, addr, timeout, is_open=False)

    def wait_for_open_unix_socket(
        self, addr: str, is_datagram: bool = False, timeout: Duration | None = DEFAULT_TIMEOUT
    ) -> None:
        """Wait until something listens on a UNIX socket."""
        __tracebackhide__ = True
        ports.wait_for_unix_socket(self, addr, is_datagram, timeout)

    def wait_for_x(self, timeout: Duration | None = DEFAULT_TIMEOUT) -> None:
        """Wait until an X server answers on the machine's DISPLAY.

        :raise Unsupported: if the machine has no `xwininfo` to ask with.
        """
        __tracebackhide__ = True
        x11.wait_for_x(self, timeout)

    def wait_for_window(self, regexp: str, timeout: Duration | None = DEFAULT_TIMEOUT) -> None:
        """Wait until a window's title matches.

        :raise Unsupported: if the machine has no `xwininfo` to ask with.
        """
        __tracebackhide__ = True
        x11.wait_for_window(self, regexp, timeout)

    def wait_for_console_text(self, regex: str, timeout: Duration | None = None) -> None:
        """Wait until the console prints a text that no earlier call has matched.

        The pattern may span lines; `^` and `$` match at each.

        :raise WaitTimeout: with the console's end.
        :raise MachineDied: as soon as the machine ends, unless it only reboots, as it may.
        """
        __tracebackhide__ = True
        pattern = re.compile(regex, re.MULTILINE)
        what, deadline = f"console text {regex!r}", Deadline(timeout)
        with waiting(self._events, self.name, what, deadline):
            self.run_callbacks()
            self._ensure_started()
            if self._console.wait(pattern, deadline, self._is_off_for_good):
                return
            if self._is_off_for_good():
                raise self._died(doing=f"the wait for {what}")
            seen = tail("console", self._console.text).lstrip("\n") or "  its console is empty"
            raise WaitTimeout(self.name, what, deadline.elapsed(), seen)

    def seen_by(self, command: str) -> str:
        """What a command shows, for the message of an error."""
        result = self.look(command, Deadline(EVIDENCE_TIMEOUT))
        shown = tail(command, result.stdout.decode(errors="replace")).lstrip("\n")
        return shown or f"  `{command}` shows nothing (exit code {result.status})"

    def _is_off_for_good(self) -> bool:
        return not self.is_up() and not self._returns()

    def _look_once(self, what: str, look: Callable[[Deadline], bool], deadline: Deadline) -> bool:
        self.run_callbacks()
        try:
            self._ensure_started()
            return look(deadline)
        except MachineDied as death:
            if death.machine != self.name:
                raise
            if self._returns():
                return False
            raise self._died(doing=f"the wait for {what}") from None

    def _wait_for_status(
        self, command: str, timeout: Duration | None, attempt: Duration | None, *, succeeds: bool
    ) -> str:
        __tracebackhide__ = True
        last: list[Result] = []

        def done(deadline: Deadline) -> bool:
            last[:] = [self.connection.run(command, deadline.look(attempt), quiet=True)]
            return (last[0].status == 0) == succeeds

        what = f"`{shortened(command)}` to {'succeed' if succeeds else 'fail'}"
        self.wait(what, done, timeout, evidence=lambda: _last_attempt(last))
        return last[0].stdout.decode(errors="replace")


def _gathered(evidence: Callable[[], str]) -> str:
    """Evidence, or why there is none: the wait that failed is the error to be told."""
    try:
        return evidence()
    except NxcError as error:
        return f"  what there was instead could not be seen: {str(error).splitlines()[0]}"


def _last_attempt(results: list[Result]) -> str:
    if not results:
        return "  it was never run to its end"
    last = results[0]
    out, err = (data.decode(errors="replace") for data in (last.stdout, last.stderr))
    end = f", ended after {last.duration:.1f} s" if last.timed_out else ""
    return f"  last exit code {last.status}{end}{outputs(out, err)}"
