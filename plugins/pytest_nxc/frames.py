"""Keeps nxc_testing's own frames out of the user's sight: theirs is the line that matters."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

import pytest

from nxc_testing.errors import NxcError

PACKAGE = "nxc_testing"


def hide() -> None:
    """Keep them out of tracebacks; `--full-trace` shows them all the same."""
    for module in list(sys.modules.values()):
        if _is_own(vars(module)):
            vars(module).setdefault("__tracebackhide__", _are_of_no_interest)


def _are_of_no_interest(excinfo: pytest.ExceptionInfo[BaseException] | None) -> bool:
    """Whether nxc_testing raised what it means to raise, or somebody else raised."""
    if excinfo is None or isinstance(excinfo.value, NxcError):
        return True
    return not _is_own(excinfo.traceback[-1].frame.f_globals)


def open_debugger_above(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Let a debugger that is about to open on an error stand in the last frame of the user's."""
    last = None
    tb: TracebackType | None = excinfo.tb
    while tb is not None:
        if not _is_own(tb.tb_frame.f_globals):
            last = tb
        tb = tb.tb_next
    if last is not None:
        last.tb_next = None


def _is_own(module: dict[str, Any]) -> bool:
    """Whether a frame of this module is ours, and no test's: the suite for backends is tests."""
    name = str(module.get("__name__"))
    return name.partition(".")[0] == PACKAGE and not name.startswith(f"{PACKAGE}.conformance.")
