"""How `nxc-test` prints lists."""

from __future__ import annotations

import time
from collections.abc import Sequence

DAY = 24 * 3600


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; the first has the heads."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def age(since: float) -> str:
    """How long ago something was, roughly.

    :param since: seconds since the epoch.
    """
    seconds = max(0.0, time.time() - since)
    for unit, length in (("days", DAY), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
