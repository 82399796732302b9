"""Makes every `subtest` of a driver a pytest subtest, with an outcome of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nxc_testing.errors import ConfigError, InfraError

__tracebackhide__ = True

END_OF_TEST = (pytest.skip.Exception, pytest.xfail.Exception)
"""They say something of the whole test, wherever in it they are raised."""

ENDING_ERRORS = (
    *(NameError, AttributeError, TypeError, ImportError, SyntaxError),
    *(ConfigError, InfraError),
)
"""After a mistake in the test itself, or a machine's death, the next subtest would tell nothing."""


class SubtestReporter:
    """Reports the subtests of the test that runs now.

    :param keep_going: whether a test goes on after a failed subtest.
    """

    def __init__(self, *, keep_going: bool):
        self._keep_going = keep_going
        self._pytest: pytest.Subtests | None = None
        self._names: list[str] = []
        self._told: tuple[BaseException, str] | None = None

    @contextmanager
    def during(self, subtests: pytest.Subtests) -> Iterator[None]:
        """Report through a test's own `subtests` fixture while that test runs."""
        self._pytest, self._told = subtests, None
        try:
            yield
        finally:
            self._pytest = self._told = None

    @contextmanager
    def subtest(self, name: str) -> Iterator[None]:
        """Run a block as a subtest; one in another is called `outer / inner`.

        A failure is raised on if it ends the test, and `told_at` knows it then.
        """
        if self._pytest is None:
            yield
            return
        self._names.append(name)
        title = " / ".join(self._names)
        failure: BaseException | None = None
        try:
            with self._pytest.test(title):
                try:
                    yield
                except BaseException as error:
                    failure = error
                    raise
        finally:
            self._names.pop()
            if failure is not None and self.told_at(failure) is None:
                self._told = (failure, title)
        if failure is not None and not self._goes_on_after(failure):
            raise failure

    def told_at(self, error: BaseException) -> str | None:
        """The subtest whose report has told of an error already; None if no report has."""
        return self._told[1] if self._told and self._told[0] is error else None

    def _goes_on_after(self, error: BaseException) -> bool:
        return self._keep_going and can_go_on_after(error)


def can_go_on_after(error: BaseException) -> bool:
    """Whether it makes sense that a test goes on after an error in a subtest."""
    if isinstance(error, END_OF_TEST):
        return False
    usual = isinstance(error, (Exception, pytest.fail.Exception))
    return usual and not isinstance(error, ENDING_ERRORS)
