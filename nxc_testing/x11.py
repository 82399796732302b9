"""The X display of a machine, asked by its own tools (package x11-utils)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nxc_testing.errors import CommandFailed, Unsupported
from nxc_testing.waiting import Duration

if TYPE_CHECKING:
    from nxc_testing.shell import Result
    from nxc_testing.waits import Waits

_TREE = "xwininfo -root -tree"
_TITLE = re.compile(r'^\s+0x[0-9a-f]+ "(.*)": \(', re.MULTILINE)


def wait_for_x(machine: Waits, timeout: Duration | None) -> None:
    """Wait until an X server answers on the machine's DISPLAY."""
    _require_tool(machine, "wait_for_x")
    machine.wait(
        "the X server",
        lambda deadline: machine.look("xwininfo -root", deadline).status == 0,
        timeout,
        evidence=lambda: machine.seen_by("xwininfo -root 2>&1"),
    )


def window_names(machine: Waits) -> list[str]:
    """The titles of all windows, from the tree under the root window.

    :raise CommandFailed: if there is no X server.
    :raise Unsupported: if the machine cannot be asked.
    """
    _require_tool(machine, "get_window_names")
    result = machine.look(_TREE)
    if result.status != 0:
        error = result.stderr.decode(errors="replace")
        raise CommandFailed(machine.name, _TREE, result.status, "", error)
    return _titles(result)


def wait_for_window(machine: Waits, regexp: str, timeout: Duration | None) -> None:
    """Wait until a window's title matches."""
    pattern = re.compile(regexp)
    _require_tool(machine, "wait_for_window")
    machine.wait(
        f"a window that matches {regexp!r}",
        lambda deadline: any(map(pattern.search, _titles(machine.look(_TREE, deadline)))),
        timeout,
        evidence=lambda: machine.seen_by(f"{_TREE} 2>&1"),
    )


def _titles(tree: Result) -> list[str]:
    return _TITLE.findall(tree.stdout.decode(errors="replace"))


def _require_tool(machine: Waits, method: str) -> None:
    if machine.look("command -v xwininfo").status != 0:
        why = "the machine has no `xwininfo` command (package x11-utils or xorg.xwininfo)"
        raise Unsupported(machine.name, method, machine.backend, why)
