"""A prompt on live machines, with the testScript's globals; leaving it releases everything."""

from __future__ import annotations

import code
import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nxc_testing import testscript
from nxc_testing.errors import ConfigError, NxcError
from nxc_testing.events import (
    CommandFinished,
    CommandOutput,
    CommandStarted,
    Event,
    Logged,
    MachineEnded,
    MachineStarted,
    Progress,
    WaitFinished,
    WaitStarted,
)

if TYPE_CHECKING:
    from nxc_testing.driver import Driver

Globals = dict[str, Any]

LIBRARY = str(Path(__file__).parent)


def symbols(driver: Driver) -> Globals:
    """What the prompt knows: the testScript's globals, and `test_script` to run it.

    `test_script()` reads the file anew each time, so that it can be edited meanwhile.
    """

    def test_script() -> None:
        """Run the composition's testScript as its file is now."""
        script = driver.composition.test_script
        if script is None:
            raise ConfigError("this composition has no testScript", file=driver.composition.source)
        testscript.run(script, driver)

    return {**driver.symbols(), "test_script": test_script, "run_tests": test_script}


def banner(driver: Driver) -> str:
    """What is said first: who is there, and what to do."""
    names = ", ".join(machine.name for machine in driver.machines)
    return (
        f"{driver.composition.name} on {driver.backend}: {names}\n"
        "start_all() starts them, test_script() runs the testScript as its file is now,\n"
        "Ctrl-D leaves and releases everything."
    )


def run(driver: Driver) -> None:
    """Read and run lines until the user leaves.

    ptpython is used where it is installed and a person sits at the terminal; else the prompt is
    Python's own, which also runs what is piped in.
    """
    known = symbols(driver)
    embed = _ptpython() if sys.stdin.isatty() else None
    if embed is not None:
        sys.stdout.write(banner(driver) + "\n")
        embed(globals=known, locals=known, title=f"nxc-test: {driver.composition.name}")
        return
    Console(known).interact(banner(driver), exitmsg="")


class Console(code.InteractiveConsole):
    """Python's own prompt; an error of ours is shown without the frames of this library."""

    def showtraceback(self) -> None:
        """Show what went wrong."""
        error = sys.exc_info()[1]
        if isinstance(error, NxcError):
            frames = traceback.extract_tb(error.__traceback__)
            own = [f for f in frames if not f.filename.startswith((LIBRARY, code.__file__, "<"))]
            self.write("".join(traceback.format_list(own)))
            self.write(f"{type(error).__name__}: {error}\n")
        else:
            super().showtraceback()


def show(write: Callable[[str], object]) -> Callable[[Event], None]:
    """A reader of events for a person: what runs, what it prints, how it ends.

    :param write: takes whole lines.
    """

    def reader(event: Event) -> None:
        text = _line(event)
        if text:
            who = getattr(event, "machine", "")
            prefix = f"{who}: " if who else ""
            write("".join(f"{prefix}{line}\n" for line in text.splitlines()))

    return reader


def _line(event: Event) -> str:
    match event:
        case Progress(topic=topic, message=message):
            return f"{topic}: {message}"
        case CommandStarted(command=command):
            return f"$ {command}"
        case CommandOutput(text=text):
            return text
        case CommandFinished(status=status, duration=duration, error=error):
            return error or (f"exit code {status} after {duration:.2f} s" if status else "")
        case WaitStarted(what=what):
            return f"waiting for {what}"
        case WaitFinished(duration=duration, error=error):
            return error or f"waited {duration:.2f} s"
        case MachineStarted(boot=boot):
            return f"started (boot {boot})"
        case MachineEnded(reason=reason):
            return f"ended: {reason}"
        case Logged(message=message):
            return message
        case _:
            return ""


def _ptpython() -> Callable[..., object] | None:
    try:
        embed: Callable[..., object] = importlib.import_module("ptpython.repl").embed
    except ImportError:
        return None
    return embed
