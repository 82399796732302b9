"""`nxc-test shell`: a prompt on a composition's machines."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nxc_testing.cli import Commands


def register(commands: Commands) -> None:
    """Add this command to the command line."""
    shell = commands.add_parser(
        "shell",
        help="start a composition's machines and give a prompt",
        description="Starts the machines of a composition and gives a Python prompt with the "
        "testScript's globals: the machines by their names, start_all, subtest, ... "
        "Leaving it releases everything.",
    )
    shell.add_argument("composition", type=Path, help="a directory with a composition.toml")
    shell.add_argument("--backend", default="docker", help="what the machines are")
    shell.add_argument("--role", action="append", default=[], metavar="ROLE=N|a,b")
    shell.add_argument("--roles", type=Path, metavar="FILE", help="roles and counts, YAML or JSON")
    shell.add_argument("--mirror", metavar="URL", help="a mirror of Debian; default: the host's")
    shell.add_argument("--no-start", action="store_true", help="do not start the machines")
    shell.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Make the machines and read lines until the user leaves.

    :return: 0.
    """
    from nxc_testing import repl  # noqa: PLC0415 - not cheap
    from nxc_testing.composition.counts import with_counts  # noqa: PLC0415
    from nxc_testing.composition.toml import load  # noqa: PLC0415
    from nxc_testing.launch import Settings, open_driver  # noqa: PLC0415
    from nxc_testing.session import Session  # noqa: PLC0415

    composition = with_counts(load(options.composition), options.role, options.roles)
    with closing(Session()) as session:
        session.events.subscribe(repl.show(sys.stderr.write))
        settings = Settings(backend=options.backend, mirror=options.mirror)
        with open_driver(composition, settings, session) as driver:
            if not options.no_start:
                driver.start_all()
            repl.run(driver)
    return 0
