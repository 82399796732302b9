"""systemd units of a machine: reading their state, waiting for it, and saying why it did not come.

What is waited for and when it fails follows the NixOS test driver (manual, "Machine objects").
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from nxc_testing.errors import UnitError, tail
from nxc_testing.waiting import Deadline, Duration

if TYPE_CHECKING:
    from nxc_testing.waits import Waits

JOURNAL_LINES = 10
EVIDENCE_TIMEOUT = 5.0
_PROPERTIES = "LoadState,ActiveState,SubState,Type,Result,ExecMainStatus,NRestarts"
_ONESHOT_DONE = {"ActiveState": "inactive", "Type": "oneshot", "Result": "success"}


def systemctl(query: str, user: str | None) -> str:
    """The command line for a systemctl query, as root or as a user's own manager."""
    if user is None:
        return f"systemctl {query}"
    inner = f"XDG_RUNTIME_DIR=/run/user/`id -u` systemctl --user {query}"
    return f"su -l {shlex.quote(user)} --shell /bin/sh -c {shlex.quote(inner)}"


def parse_properties(text: str) -> dict[str, str]:
    """What `systemctl show` prints, by property; of several lines the first."""
    return dict(re.findall(r"^([^=\s]+)=(.*)$", text, re.MULTILINE))


def show(
    machine: Waits,
    unit: str,
    user: str | None,
    *,
    properties: str = "",
    deadline: Deadline | None = None,
) -> dict[str, str]:
    """A unit's properties, asked for without a trace in the event log.

    :param properties: their names, with commas; all by default.
    :param deadline: of the wait that asks; at it nothing is known.
    :raise UnitError: if systemctl fails.
    """
    only = f" --property={shlex.quote(properties)}" if properties else ""
    query = systemctl(f"--no-pager show {shlex.quote(unit)}{only}", user)
    result = machine.look(query, deadline)
    if result.timed_out and deadline is not None:
        return {}
    if result.status != 0:
        error = result.stderr.decode(errors="replace")
        raise UnitError(
            f"{machine.name}: the state of unit {unit!r} could not be read"
            f" (exit code {result.status})" + tail("stderr", error)
        )
    return parse_properties(result.stdout.decode(errors="replace"))


def evidence(machine: Waits, unit: str, user: str | None) -> str:
    """What a person would look at when a unit is not as it should be."""
    deadline = Deadline(EVIDENCE_TIMEOUT)
    state = show(machine, unit, user, properties=_PROPERTIES, deadline=deadline)
    if not state:
        return f"  systemctl did not answer in {EVIDENCE_TIMEOUT:.0f} s"
    facts = ", ".join(f"{key}={value}" for key, value in state.items() if value)
    scope = f"--user-unit={shlex.quote(unit)}" if user else f"--unit={shlex.quote(unit)}"
    journal = machine.look(
        f"journalctl --no-pager --quiet --output=short --lines={JOURNAL_LINES} {scope}",
        deadline,
    )
    text = journal.stdout.decode(errors="replace")
    if state.get("LoadState") == "not-found":
        facts += " (there is no such unit)"
    elif _ONESHOT_DONE.items() <= state.items():
        facts += " (a oneshot that has done its work; RemainAfterExit=yes would keep it active)"
    return f"  {facts}" + (tail("journal", text) or "\n  its journal is empty")


def wait_for_state(
    machine: Waits, unit: str, wanted: str, user: str | None, timeout: Duration | None
) -> None:
    """Wait until a unit's ActiveState is the wanted one.

    :raise UnitError: at once, if it failed, or is inactive with nothing pending that could
        start it.
    :raise WaitTimeout: at the deadline.
    """

    def reached(deadline: Deadline) -> bool:
        state = _active_state(machine, unit, user, deadline)
        if state == wanted:
            return True
        if wanted == "active" and state == "failed":
            raise UnitError(
                f'{machine.name}: unit "{unit}" reached state "failed"\n'
                + evidence(machine, unit, user)
            )
        if (
            wanted == "active"
            and state == "inactive"
            and not _jobs_pending(machine, user, deadline)
        ):
            # A job may have ended between the two looks.
            again = _active_state(machine, unit, user, deadline)
            if again == "inactive":
                raise UnitError(
                    f'{machine.name}: unit "{unit}" is inactive and there are no pending jobs\n'
                    + evidence(machine, unit, user)
                )
            return again == wanted
        return False

    what = f'unit "{unit}" to be {wanted}'
    machine.wait(what, reached, timeout, evidence=lambda: evidence(machine, unit, user))


def _active_state(
    machine: Waits, unit: str, user: str | None, deadline: Deadline | None = None
) -> str:
    found = show(machine, unit, user, properties="ActiveState", deadline=deadline)
    return found.get("ActiveState", "")


def _jobs_pending(machine: Waits, user: str | None, deadline: Deadline) -> bool:
    result = machine.look(systemctl("list-jobs --full 2>&1", user), deadline)
    return "No jobs" not in result.stdout.decode(errors="replace")


def require_state(machine: Waits, unit: str, wanted: str, user: str | None) -> None:
    """Demand a unit's ActiveState now.

    :raise UnitError: if it is another.
    """
    state = _active_state(machine, unit, user)
    if state != wanted:
        raise UnitError(
            f'{machine.name}: unit "{unit}" should be "{wanted}" but is "{state}"\n'
            + evidence(machine, unit, user)
        )
