"""`nxc-test doctor`: which backends this host can use, and what it lacks for the others."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nxc_testing.cli.text import print_table

if TYPE_CHECKING:
    from nxc_testing.cli import Commands

HEAD = ("BACKEND", "USABLE", "REMARKS")


def register(commands: Commands) -> None:
    """Add this command to the command line."""
    doctor = commands.add_parser(
        "doctor",
        help="show which backends this host can use",
        description="Shows which backends this host can use, what it lacks for the others, and "
        "how each would do its work here.",
    )
    doctor.set_defaults(run=show)


def show(options: argparse.Namespace) -> int:
    """`nxc-test doctor`.

    :return: 1 if no backend can be used.
    """
    from nxc_testing import backends  # noqa: PLC0415
    from nxc_testing.backends.base import Explains  # noqa: PLC0415

    rows, usable = [HEAD], 0
    for name in backends.names():
        backend = backends.create(name)
        why = backend.unavailable()
        usable += why is None
        if why is None:
            remarks = backend.remarks() if isinstance(backend, Explains) else ()
            rows.append((name, "yes", "; ".join(remarks)))
        else:
            rows.append((name, "no", why))
    print_table(rows)
    return 0 if usable else 1
