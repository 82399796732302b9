"""What machines can tell after a failure, whatever state they are in: consoles and journals."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nxc_testing.backends.base import OwnSystem
from nxc_testing.composition.model import ShellMode
from nxc_testing.errors import NxcError
from nxc_testing.machine import Machine
from nxc_testing.shell import Shell, prepare
from nxc_testing.waiting import Deadline

PATIENCE = 5.0
"""Seconds for a machine to give its journal; one that is stuck must not hold up the rest."""

LINES = 20_000
"""Lines of a journal that are kept: the last ones."""

_JOURNAL = f"journalctl --boot --no-pager --output short-precise --lines {LINES}"


@dataclass(slots=True)
class Evidence:
    """What one machine tells.

    :ivar console: all that it printed, over all boots.
    :ivar journal: systemd's journal of the present boot, its last lines; empty if there is none.
    :ivar missing: why there is no journal; empty if there is one.
    """

    machine: str
    console: str
    journal: str = ""
    missing: str = ""

    def write(self, directory: Path) -> None:
        """Write what there is into a directory, a file each."""
        for kind, text in (("console", self.console), ("journal", self.journal or self.missing)):
            if text:
                (directory / f"{self.machine}.{kind}.log").write_text(text)


def gather(machines: Sequence[Machine], patience: float = PATIENCE) -> list[Evidence]:
    """Ask machines side by side for what they can tell; those that never started tell nothing.

    It neither needs nor touches the shells that tests use, which may be what is broken.

    :param patience: seconds; what is not there by then is missing.
    """
    found = [Evidence(m.name, m.console_history) for m in machines if m.node.boot is not None]
    asked = [m for m in machines if m.node.boot is not None]
    threads = []
    for machine, evidence in zip(asked, found, strict=True):
        evidence.missing = f"the machine did not give its journal within {patience} s"
        thread = threading.Thread(
            target=_ask, args=(machine, evidence, patience), name="nxc-evidence", daemon=True
        )
        thread.start()
        threads.append(thread)
    deadline = Deadline(patience)
    for thread in threads:
        thread.join(deadline.remaining())
    return found


def _ask(machine: Machine, evidence: Evidence, patience: float) -> None:
    node = machine.node
    if node.boot is None or node.boot.ended.is_set():
        evidence.missing = "the machine is off"
        return
    if not isinstance(node, OwnSystem):
        evidence.missing = "the machine has no journal of its own"
        return
    try:
        shell = Shell(node.name, node.open_channel())
        try:
            result = shell.run(prepare(_JOURNAL, ShellMode.NXC, booting=True), patience)
        finally:
            with suppress(NxcError):
                shell.close()
    except NxcError as error:
        evidence.missing = str(error)
        return
    text = result.stdout.decode(errors="replace")
    if result.status == 0:
        evidence.journal, evidence.missing = text, ""
    else:
        said = result.stderr.decode(errors="replace").strip()
        evidence.missing = f"journalctl: exit code {result.status}: {said}"
