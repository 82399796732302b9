"""What a test's report tells beside its failure, and what the event stream is told of tests."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from nxc_testing.errors import InfraError, TestScriptError
from nxc_testing.events import Event, TestFinished, TestStarted
from nxc_testing.testscript import unreached
from pytest_nxc import frames
from pytest_nxc.artifacts import Sections
from pytest_nxc.collection import SCRIPT
from pytest_nxc.lifetime import Lifetime, bed_of
from pytest_nxc.record import Record
from pytest_nxc.subtests import can_go_on_after

if TYPE_CHECKING:
    from nxc_testing.session import Session

TITLE = "nxc: last commands"

TEST_BED = "nxc_test_bed"
"""An attribute of reports, which outlives their way through pytest-xdist: the test bed broke."""


class Reports:
    """A plugin that stands between pytest's reports and the event stream."""

    def __init__(self, lifetime: Lifetime):
        self._lifetime = lifetime
        self._record = Record()
        self._session: Session | None = None
        self._test = ""
        self._outcome = "passed"
        self._ends: Sections = []

    def pytest_nxc_session_start(self, session: Session) -> None:
        """Read from the first event on."""
        self._session = session
        session.events.subscribe(self._record.take)
        if self._test:
            self._emit(TestStarted(test=self._test))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Tell the event stream when a test begins and how it ends."""
        self._record.clear()
        self._lifetime.artifacts.begin_test()
        self._test, self._outcome = item.nodeid, "passed"
        start = time.monotonic()
        self._emit(TestStarted(test=item.nodeid))
        try:
            return (yield)
        except (KeyboardInterrupt, pytest.exit.Exception) as error:
            # A test that hangs is cancelled, and then it matters most where it was.
            self._collect(item, error)
            raise
        finally:
            duration = time.monotonic() - start
            self._emit(TestFinished(test=item.nodeid, outcome=self._outcome, duration=duration))
            self._test = ""

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        """Keep what the machines can tell while they are still there."""
        try:
            yield
        except BaseException as error:
            self._collect(item, error)
            raise
        if self._lifetime.options.artifacts == "on" and self._outcome == "passed":
            self._collect(item)

    def _collect(self, item: pytest.Item, error: BaseException | None = None) -> None:
        bed = bed_of(item)
        if bed and bed.driver:
            failure = "" if error is None else str(error)
            self._ends = self._lifetime.artifacts.collect(item.nodeid, bed.driver, failure)

    def _emit(self, event: Event) -> None:
        if self._session is not None:
            self._session.events.emit(event)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add the machines' last commands, or point to the subtest that told all of it."""
        if call.excinfo:
            frames.hide()
        report = yield
        if report.failed or (report.skipped and self._outcome == "passed"):
            self._outcome = report.outcome
        if report.failed and call.excinfo:
            error = call.excinfo.value
            self._lifetime.artifacts.kept |= bed_of(item) is not None
            if isinstance(error, InfraError):
                setattr(report, TEST_BED, True)
            if subtest := self._lifetime.subtests.told_at(error):
                report.longrepr = self._pointer(item, subtest, error)
                return report
            if isinstance(error, TestScriptError) or self._lifetime.is_own(error):
                # The message says all; there is no line of the test to show.
                report.longrepr = _message(error)
        if commands := self._record.text():
            report.sections.append((TITLE, commands))
        if report.failed:
            self._record.clear()
            if call.when != "teardown":
                self._collect(item, call.excinfo.value if call.excinfo else None)
            report.sections += self._ends
            self._ends = []
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.CollectReport | pytest.TestReport
    ) -> tuple[str, str, str] | None:
        """A test that the test bed failed is an error, as one whose fixtures failed."""
        return ("error", "E", "ERROR") if getattr(report, TEST_BED, False) else None

    def _pointer(self, item: pytest.Item, subtest: str, error: BaseException) -> str:
        """One line for a test that ended with a subtest."""
        rest = unreached(item.stash[SCRIPT], error) if SCRIPT in item.stash else ""
        missed = f"; not run: {rest}" if rest else ""
        could = self._lifetime.options.subtests == "stop" and can_go_on_after(error)
        hint = " (--nxc-subtests=continue goes on)" if could else ""
        return f"stopped at subtest {subtest!r}{missed}{hint}"


def _message(error: BaseException) -> str:
    """An error without its traceback, and what was being handled when it came up."""
    text = f"{type(error).__name__}: {error}"
    before = None if error.__suppress_context__ else error.__context__
    return f"{text}\nwhile handling {_message(before)}" if before else text
