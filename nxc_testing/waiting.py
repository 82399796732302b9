"""Time: durations, deadlines, and the one loop that waits for something."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from nxc_testing.errors import MachineUsageError

Duration = float | int | timedelta
"""Seconds, or a timedelta; what every timeout of the public API takes."""

DEFAULT_TIMEOUT = 900.0
"""Seconds; upstream's fifteen minutes."""

FIRST_PAUSE = 0.01
PAUSE_SHARE = 0.08
LONGEST_PAUSE = 2.0
SHORTEST_LOOK = 1.0
"""Seconds that the last look of a wait is given where less is left."""


def seconds(duration: Duration | None) -> float | None:
    """A duration in seconds.

    :param duration: seconds, a timedelta, or None for no limit.
    :return: seconds, or None.
    :raise MachineUsageError: if it is not a duration (a bool is not), or is negative or NaN.
    """
    if duration is None:
        return None
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, bool) or not isinstance(duration, (int, float)):
        raise MachineUsageError(f"{duration!r}: a duration is a number of seconds or a timedelta")
    else:
        value = float(duration)
    if math.isnan(value) or value < 0:
        raise MachineUsageError(f"{duration!r}: a duration cannot be negative or NaN")
    return None if math.isinf(value) else value


class Deadline:
    """A point in time; it is handed down, so that inner steps share what is left.

    :param duration: how far away it is; None is never.
    """

    def __init__(self, duration: Duration | None):
        self.total = seconds(duration)
        self._start = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the deadline was set."""
        return time.monotonic() - self._start

    def remaining(self) -> float | None:
        """Seconds left, never negative; None where there is no limit."""
        return None if self.total is None else max(0.0, self.total - self.elapsed())

    @property
    def expired(self) -> bool:
        """Whether the time is over."""
        return self.total is not None and self.elapsed() >= self.total

    def look(self, duration: Duration | None = None) -> float | None:
        """How long one look may take, in seconds: what is left, but never too short to see.

        :param duration: the look's own limit, which holds however short it is.
        """
        left, given = self.remaining(), seconds(duration)
        if left is None:
            return given
        enough = max(left, SHORTEST_LOOK)
        return enough if given is None else min(enough, given)

    def limit(self, duration: Duration | None) -> float | None:
        """The shorter of a duration and what is left, in seconds; None where neither limits."""
        mine, given = self.remaining(), seconds(duration)
        if mine is None or given is None:
            return given if mine is None else mine
        return min(mine, given)


def pause_after(elapsed: float) -> float:
    """How long to rest between two looks, by how long the wait has lasted (both in seconds).

    It grows with the time already spent, so that looking late adds less than a tenth to it.
    """
    return min(LONGEST_PAUSE, FIRST_PAUSE + PAUSE_SHARE * elapsed)


def poll(
    look: Callable[[Deadline], bool],
    deadline: Deadline,
    *,
    interrupted: threading.Event | None = None,
) -> bool:
    """Look until it is true: often at first, more rarely later, one last time at the deadline.

    :param look: called with the deadline; true ends the wait. What it raises ends it too.
    :param deadline: when to give up.
    :param interrupted: once set, no pause is longer: the next look meets the reason and raises.
    :return: whether it became true in time.
    """
    while True:
        last = deadline.expired
        if look(deadline):
            return True
        if last:
            return False
        pause = pause_after(deadline.elapsed())
        remaining = deadline.remaining()
        if remaining is not None:
            pause = min(pause, remaining)
        if interrupted is None:
            time.sleep(pause)
        elif interrupted.wait(pause):
            time.sleep(min(pause, FIRST_PAUSE))
