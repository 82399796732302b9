"""`nxc-test shell`: a prompt on a composition's machines."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from nxc_testing import backends

if TYPE_CHECKING:
    from nxc_testing.cli import Commands

OPTION = "--role"


def register(commands: Commands) -> None:
    """Add this command to the command line."""
    shell = commands.add_parser(
        "shell",
        help="start a composition's machines and give a prompt",
        description="Starts the machines of a composition and gives a Python prompt with the "
        "testScript's globals: the machines by their names, start_all, subtest, ... "
        "Leaving it releases everything.",
    )
    given = os.environ.get
    shell.add_argument("composition", type=Path, help="a directory with a composition.toml")
    shell.add_argument(
        "--backend",
        metavar="NAME",
        default=given("NXC_BACKEND") or backends.AUTO,
        help="what the machines are [NXC_BACKEND; default: auto, the first that this host can use:"
        f" {', '.join(backends.CANDIDATES)}]",
    )
    shell.add_argument(
        OPTION,
        action="append",
        metavar="ROLE=N|a,b",
        help="how many machines a role has, or their names; may be repeated [NXC_ROLE]",
    )
    shell.add_argument(
        "--roles",
        type=Path,
        metavar="FILE",
        default=given("NXC_ROLES") or None,
        help="a file of counts, YAML if it ends in .yaml or .yml, else JSON [NXC_ROLES]",
    )
    shell.add_argument(
        "--mirror",
        metavar="URL",
        default=given("NXC_MIRROR") or None,
        help="a mirror of Debian [NXC_MIRROR; default: the host's]",
    )
    shell.add_argument("--no-start", action="store_true", help="do not start the machines")
    shell.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Make the machines and read lines until the user leaves.

    :return: 0.
    """
    from nxc_testing import repl  # noqa: PLC0415 - not cheap
    from nxc_testing.backends.capabilities import needed_by  # noqa: PLC0415
    from nxc_testing.composition.counts import with_counts  # noqa: PLC0415
    from nxc_testing.composition.toml import load  # noqa: PLC0415
    from nxc_testing.launch import Settings, open_driver  # noqa: PLC0415
    from nxc_testing.session import Session  # noqa: PLC0415

    roles = options.role or shlex.split(os.environ.get("NXC_ROLE", ""))
    composition = with_counts(load(options.composition), roles, options.roles, option=OPTION)
    choice = backends.choose(options.backend, needed_by(composition))
    if choice.reason:
        print(f"backend: {choice}", file=sys.stderr)
    with closing(Session()) as session:
        session.events.subscribe(repl.show(sys.stderr.write))
        settings = Settings(backend=choice.name, mirror=options.mirror)
        with open_driver(composition, settings, session) as driver:
            if not options.no_start:
                driver.start_all()
            # Where a prompt waits for keys, it is not sure that Python comes to run a handler; so
            # SIGTERM kills, and the reaper releases everything.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            repl.run(driver)
    return 0
