"""The command `nxc-test`. Every sub-command is a module here that registers itself."""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Protocol

from nxc_testing.errors import ConfigError, NxcError

COMMANDS = ("image", "shell", "runs", "doctor")
"""The modules of this package that have a `register(subparsers)`.

It adds a parser whose default `run` is a function of the parsed arguments that returns the exit
status; heavy imports belong into that function.
"""


class Commands(Protocol):
    """What a module of a sub-command adds itself to."""

    def add_parser(
        self, name: str, *, help: str, description: str | None = None
    ) -> argparse.ArgumentParser:
        """A new sub-command.

        :param help: one line on what it does, for the list of commands.
        :param description: more, for its own help.
        """


def main(argv: Sequence[str] | None = None) -> int:
    """Run `nxc-test`.

    :param argv: the arguments; the process's by default.
    :return: the exit status: 0, 1 for a failure, 2 for something the user wrote wrongly, 128 and
        the signal's number after a signal.
    """
    options = parser().parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.WARNING)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        status: int = options.run(options)
    except NxcError as error:
        if options.debug:
            raise
        print(f"nxc-test: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("nxc-test: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, before)
    return status


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="nxc-test", description="Machines for tests of distributed systems."
    )
    top.add_argument(
        "--debug", action="store_true", help="show log messages, and a traceback with errors"
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"{__name__}.{name}").register(commands)
    return top


def _terminate(number: int, frame: FrameType | None) -> None:
    """End as after an exception, so that everything is released on the way out."""
    sys.exit(128 + number)
