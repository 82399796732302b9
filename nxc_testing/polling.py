"""Polling conditions: what must hold while something else goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

from nxc_testing.errors import PollingConditionError, WaitTimeout
from nxc_testing.waiting import DEFAULT_TIMEOUT, Deadline, Duration, poll, seconds

INTERVAL = 2.0


class PollingCondition:
    """A condition that is looked at again and again inside a `with` block of it.

    :param function: false or an exception means that it does not hold; None counts as true.
    :param active: the conditions whose blocks run now.
    :param interval: how old a look may be; 2 s by default.
    :param description: for the error; by default the function's docstring, or its name.
    """

    def __init__(
        self,
        function: Callable[[], bool | None],
        active: list[PollingCondition],
        interval: Duration | None = None,
        description: str | None = None,
    ):
        given = seconds(interval)
        self._function, self._active = function, active
        self._interval = INTERVAL if given is None else given
        name = getattr(function, "__name__", "condition")
        self.description = (description or function.__doc__ or name).strip()
        self._last_look = float("-inf")
        self._looking = False

    def check(self) -> bool:
        """Look now.

        :return: whether it holds.
        """
        return self._look() is None

    def check_if_due(self) -> None:
        """Look if the last look is too old; not while one is under way.

        :raise PollingConditionError: if it does not hold.
        """
        if self._looking or time.monotonic() - self._last_look < self._interval:
            return
        if (why := self._look()) is not None:
            raise PollingConditionError(
                f"polling condition failed: {self.description}" + (f": {why}" if why else "")
            )

    def wait(
        self, timeout_seconds: Duration | None = None, timeout: Duration | None = None
    ) -> None:
        """Wait until it holds.

        :raise WaitTimeout: if it does not in time (15 minutes).
        """
        given = timeout if timeout is not None else timeout_seconds
        deadline = Deadline(DEFAULT_TIMEOUT if given is None else given)
        if not poll(lambda _: self.check(), deadline):
            raise WaitTimeout("driver", self.description, deadline.elapsed())

    def __enter__(self) -> None:
        """It must hold from now on, and is looked at before the first command."""
        self._last_look = float("-inf")
        self._active.append(self)

    def __exit__(self, *_: object) -> None:
        """It need not hold any more."""
        self._active.remove(self)

    def _look(self) -> str | None:
        """Why it does not hold; None if it does."""
        self._looking = True
        try:
            holds = self._function()
            return None if holds is None or holds else ""
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            self._looking = False
            self._last_look = time.monotonic()
