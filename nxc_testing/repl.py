"""A prompt on live machines, with the testScript's globals; leaving it releases everything."""

from __future__ import annotations

import code
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import platformdirs

from nxc_testing.errors import NxcError
from nxc_testing.transcript import Detail, detail, lines

if TYPE_CHECKING:
    from nxc_testing.driver import Driver
    from nxc_testing.events import Event

PACKAGE = "nxc_testing"


def banner(driver: Driver) -> str:
    """What is said first: who is there, and what to do."""
    names = ", ".join(machine.name for machine in driver.machines)
    return (
        f"{driver.composition.name} on {driver.backend}, run {driver.session.id}: {names}\n"
        "start_all() starts them, test_script() runs the testScript as its file is now,\n"
        "Ctrl-D leaves and releases everything."
    )


def run(driver: Driver) -> None:
    """Read and run lines until the user leaves.

    ptpython is used where it is installed and a person sits at a terminal that can show it; else
    the prompt is Python's own, which also runs what is piped in.

    :raise SystemExit: if a line ends the program.
    """
    known = driver.symbols()
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    able = terminal and os.environ.get("TERM", "dumb") != "dumb"
    if able and importlib.util.find_spec("ptpython"):
        from nxc_testing.ptprompt import Prompt  # noqa: PLC0415 - where ptpython is installed

        sys.stdout.write(banner(driver) + "\n")
        Prompt(known, f"nxc-test: {driver.composition.name}", history_file("ptpython")).run()
    else:
        with line_editing(known) if terminal else nullcontext():
            Console(known).interact(banner(driver), exitmsg="")


class Console(code.InteractiveConsole):
    """Python's own prompt."""

    def showtraceback(self) -> None:
        """Show what went wrong, and where in the user's lines."""
        if error := sys.exc_info()[1]:
            # The first frame is the prompt's; it leaves it out itself.
            trim(error, keep=1)
        super().showtraceback()


@contextmanager
def line_editing(known: dict[str, Any]) -> Iterator[None]:
    """Let lines be edited, names be completed by Tab and earlier lines be found again.

    Nothing of it is there where Python was built without the module `readline`.

    :param known: the names there are.
    """
    try:
        import readline  # noqa: PLC0415
        import rlcompleter  # noqa: PLC0415
    except ImportError:
        yield
        return
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    readline.set_completer(rlcompleter.Completer(known).complete)
    file = history_file("python")
    with suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        with suppress(OSError):
            readline.write_history_file(file)


def history_file(prompt: str) -> Path:
    """Where a prompt keeps the user's lines; its directory is there, if it can be."""
    directory = platformdirs.user_state_path(PACKAGE)
    with suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory / f"{prompt}-history"


def trim(error: BaseException, keep: int = 0) -> None:
    """Leave the user's own frames in an error's traceback: theirs is the line that matters.

    What is no error of ours and was raised in this library keeps all: it is a mistake of ours.

    :param keep: how many of the first frames stay, whosoever they are.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = _own_frames(link, keep)
        if isinstance(link, NxcError):
            # Its message says all.
            link.__cause__ = link.__context__ = None
        link, keep = link.__cause__ or link.__context__, 0


def _own_frames(error: BaseException, keep: int) -> TracebackType | None:
    frames, tb = [], error.__traceback__
    while tb is not None:
        frames.append(tb)
        tb = tb.tb_next
    hidden = {PACKAGE}
    if isinstance(error, (NxcError, KeyboardInterrupt)):
        hidden |= sys.stdlib_module_names
    elif not frames or _library(frames[-1]) == PACKAGE:
        return error.__traceback__
    kept = frames[:keep] + [frame for frame in frames[keep:] if _library(frame) not in hidden]
    for frame in reversed(kept):
        tb = TracebackType(tb, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return tb


def _library(tb: TracebackType) -> str:
    """The top-level package whose code a frame runs."""
    return str(tb.tb_frame.f_globals.get("__name__")).partition(".")[0]


def show(write: Callable[[str], object]) -> Callable[[Event], None]:
    """A reader of events for a person: what runs, what it prints, how it ends.

    :param write: takes whole lines.
    """

    def reader(event: Event) -> None:
        if detail(event) <= Detail.OUTPUTS:
            write("".join(f"{line}\n" for line in lines(event)))

    return reader
