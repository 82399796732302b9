"""`nxc-test ps` and `nxc-test reap`: what runs have on this host, and its removal."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nxc_testing.cli.text import age, print_table
from nxc_testing.errors import ConfigError

if TYPE_CHECKING:
    from nxc_testing.cli import Commands
    from nxc_testing.runs.leftovers import Run

HEAD = ("RUN", "STATE", "OWNER", "BACKEND", "COMPOSITION", "MACHINES", "AGE", "DIRECTORY")


def register(commands: Commands) -> None:
    """Add these commands to the command line."""
    listing = commands.add_parser(
        "ps",
        help="show the runs that have something on this host",
        description="Shows the runs that have something on this host or in its engines: running "
        "ones, kept ones (--nxc-keep), dead ones that left something behind, those that a reaper "
        "is clearing away, and those whose process is elsewhere and cannot be seen from here: in "
        "another container, or on another host that uses the same engine.",
    )
    listing.set_defaults(run=show)

    reap = commands.add_parser(
        "reap",
        help="remove what dead runs left behind",
        description="Removes all that dead runs of this user left behind. Kept runs, runs of "
        "others and runs that cannot be seen from here are removed when they are named. A running "
        "run is never touched.",
    )
    reap.add_argument("runs", metavar="RUN", nargs="*", help="only these runs, kept ones included")
    reap.add_argument(
        "--all", action="store_true", help="also kept runs, and dead runs of other users"
    )
    reap.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    reap.set_defaults(run=remove)


def show(options: argparse.Namespace) -> int:
    """`nxc-test ps`."""
    print_table([HEAD, *(_row(run) for run in _find())])
    return 0


def remove(options: argparse.Namespace) -> int:
    """`nxc-test reap`."""
    from nxc_testing.runs import leftovers  # noqa: PLC0415

    runs = _find()
    chosen = _named(runs, options.runs) if options.runs else _dead(runs, options.all)
    status = 0
    for run in chosen:
        if options.dry_run:
            outcome = leftovers.Outcome(removed=run.things)
        else:
            outcome = leftovers.remove(run)
        for thing in outcome.removed:
            print(f"{run.id}: {'would remove' if options.dry_run else 'removed'} {thing}")
        for problem in outcome.problems:
            print(f"{run.id}: {problem}", file=sys.stderr)
            status = 1
    if not chosen:
        print("nothing to remove")
    return status


def _find() -> list[Run]:
    from nxc_testing.runs import leftovers  # noqa: PLC0415

    runs, problems = leftovers.find()
    for problem in problems:
        print(f"perhaps not all: {problem}", file=sys.stderr)
    return runs


def _named(runs: list[Run], names: Iterable[str]) -> list[Run]:
    """The runs of these ids.

    :raise ConfigError: if there is none of that id, or it runs.
    """
    from nxc_testing.runs.leftovers import State  # noqa: PLC0415

    known = {run.id: run for run in runs}
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no run {name!r}", key="RUN", hint="see `nxc-test ps`")
        if known[name].state is State.RUNNING:
            owner = known[name].owner
            raise ConfigError(
                f"{name} is running",
                key="RUN",
                hint=f"end its process, {owner.pid if owner else '?'}: all goes with it",
            )
    return [known[name] for name in dict.fromkeys(names)]


def _dead(runs: list[Run], everything: bool) -> list[Run]:
    """Dead runs of this user; or all that are not running and can be seen to be so."""
    from nxc_testing.runs.leftovers import State  # noqa: PLC0415

    def mine(run: Run) -> bool:
        return run.owner is None or run.owner.uid == os.geteuid()

    return [
        run
        for run in runs
        if (run.state is State.DEAD and (everything or mine(run)))
        or (run.state is State.KEPT and everything and mine(run))
    ]


def _row(run: Run) -> tuple[str, ...]:
    from nxc_testing.runs.places import user_name  # noqa: PLC0415

    owner = "?"
    if run.owner:
        owner = str(run.owner.pid)
        if run.owner.uid != os.geteuid():
            owner += f" ({user_name(run.owner.uid)})"
    return (
        run.id,
        run.state.value,
        owner,
        ", ".join(run.backends) or "-",
        ", ".join(run.compositions) or "-",
        _short(run.machines),
        age(run.started) if run.started else "?",
        str(run.directory or "-"),
    )


def _short(machines: list[str]) -> str:
    """The first names, and how many more there are."""
    if len(machines) > 4:
        return f"{', '.join(machines[:3])} and {len(machines) - 3} more"
    return ", ".join(machines) or "-"
