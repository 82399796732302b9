"""When a composition's machines are made, and when they are released."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nxc_testing.errors import ConfigError, DeploymentError, NxcError
from pytest_nxc.artifacts import Artifacts
from pytest_nxc.options import Options
from pytest_nxc.subtests import SubtestReporter

if TYPE_CHECKING:
    from types import FrameType

    from nxc_testing.backends import Choice
    from nxc_testing.composition import Composition
    from nxc_testing.driver import Driver
    from nxc_testing.session import Session

__tracebackhide__ = True


OWN_FIXTURES = "pytest_nxc.fixtures"

XDIST = "nxc"
"""Under this name the controller and the workers of pytest-xdist tell each other things."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the run ends in order, as after Ctrl-C."""


@dataclass(slots=True)
class Bed:
    """One composition in this run.

    :ivar names: the fixtures that give its machines.
    :ivar pending: tests that need the machines and have not ended.
    :ivar users: fixtures of the user that were given machines and are not torn down.
    :ivar driver: while the machines are there.
    :ivar failure: why they could not be made.
    """

    composition: Composition
    names: frozenset[str]
    pending: set[pytest.Item] = field(default_factory=set)
    users: set[pytest.FixtureDef[object]] = field(default_factory=set)
    driver: Driver | None = None
    failure: Exception | None = None


BED = pytest.StashKey[Bed]()
"""On the directory of a composition."""


def bed_above(node: pytest.Item | pytest.Collector) -> Bed | None:
    """The nearest composition that a node is in."""
    beds = (above.stash.get(BED, None) for above in node.iter_parents())
    return next((bed for bed in beds if bed is not None), None)


def bed_of(item: pytest.Item) -> Bed | None:
    """The composition whose machines a test needs; None if it needs none."""
    return bed_above(item) if "driver" in getattr(item, "fixturenames", ()) else None


class Lifetime:
    """A plugin that owns what a pytest run has of nxc_testing: a session, and beds in it.

    The session is made for the first test that needs machines. A bed's machines are made for
    the first test that needs them and released after the last one, whatever the order.
    """

    def __init__(self, config: pytest.Config, options: Options):
        self.config, self.options = config, options
        self.worker: Mapping[str, Any] | None = getattr(config, "workerinput", {}).get(XDIST)
        self.artifacts = Artifacts(options, self.worker and self.worker["artifacts"])
        self.subtests = SubtestReporter(keep_going=options.subtests == "continue")
        self._beds: dict[Path, Bed] = {}
        self._choices: dict[tuple[str, ...], Choice] = {}
        self._session: Session | None = None
        self._item: pytest.Item | None = None
        self._own_errors: list[Exception] = []
        self._kept: list[str] = []
        self._left: list[str] = []
        self._artifacts_at: Path | None = None

    @property
    def session(self) -> Session:
        """The session; made at the first call."""
        if self._session is None:
            from nxc_testing.session import Session  # noqa: PLC0415 (imports what is not cheap)

            try:
                log = self.artifacts.event_log()
            except OSError as error:
                raise pytest.UsageError(
                    f"--nxc-artifacts-dir {self.options.artifacts_dir}: {error};"
                    " name a directory that can be written, or none: --nxc-artifacts=off"
                ) from error
            try:
                self._session = Session(event_log=log)
            except (OSError, NxcError) as error:
                raise pytest.UsageError(f"nxc: no run directory can be made: {error}") from error
            self._session.on_close(end_on_sigterm())
            self.config.hook.pytest_nxc_session_start(session=self._session, config=self.config)
        return self._session

    def backend(self, composition: Composition) -> Choice:
        """What the machines of a composition are in this run.

        :raise pytest.UsageError: if there is no such backend, or none that this host can use.
        """
        from nxc_testing import backends  # noqa: PLC0415 (only for runs with machines)
        from nxc_testing.backends.capabilities import needed_by  # noqa: PLC0415 (likewise)

        needs = composition.needs
        if needs not in self._choices:
            try:
                self._choices[needs] = backends.choose(self.options.backend, needed_by(composition))
            except ConfigError as error:
                raise pytest.UsageError(
                    f"--nxc-backend {self.options.backend}: {error.problem}; {error.hint}"
                ) from error
        return self._choices[needs]

    def header(self, items: Sequence[pytest.Item]) -> list[str]:
        """What is told before the first test; it makes the session if one needs machines."""
        if self._controller_looks:
            return []
        beds = {id(bed): bed for item in items if (bed := bed_of(item))}
        compositions = [bed.composition for bed in beds.values()]
        return self.introduction(compositions, f"run {self.session.id}") if beds else []

    def introduction(self, compositions: Sequence[Composition], run: str) -> list[str]:
        """The lines of a header.

        :param run: a few words on whose machines these are.
        """
        named: dict[str, list[str]] = {}
        for composition in compositions:
            named.setdefault(str(self.backend(composition)), []).append(composition.name)
        lines = []
        for backend, names in named.items():
            what = "composition" if len(names) == 1 else "compositions"
            lines.append(f"nxc: backend {backend}, {what} {', '.join(names)}, {run}")
        place = self.artifacts.directory
        which = "" if self.options.artifacts == "on" else " (if a test fails)"
        return [*lines, f"nxc: artifacts {_shortened(place)}{which}"] if place else lines

    def bed(self, composition: Composition, names: frozenset[str]) -> Bed:
        """The bed of a composition: one for each directory.

        :param names: the fixtures that give its machines.
        """
        return self._beds.setdefault(composition.root, Bed(composition, names))

    def driver(self, bed: Bed) -> Driver:
        """The driver of a bed; its machines are made if they are not there.

        :raise NxcError: if they cannot be made, now or at the first attempt.
        """
        if bed.failure is not None:
            raise bed.failure
        if bed.driver is None:
            try:
                bed.driver = self._open(bed.composition)
            except Exception as error:
                bed.failure = error
                self._own_errors.append(error)
                raise
            bed.driver.subtest_reporter = self.subtests.subtest
        return bed.driver

    def _open(self, composition: Composition) -> Driver:
        from nxc_testing.composition import ShellMode  # noqa: PLC0415 (not cheap)
        from nxc_testing.launch import Settings, open_driver  # noqa: PLC0415 (not cheap)

        given = self.options
        settings = Settings(
            backend=self.backend(composition).name,
            mirror=given.mirror,
            keep=given.keep,
            mode=ShellMode(given.shell) if given.shell else None,
        )
        return open_driver(composition, settings, self.session)

    def is_own(self, error: BaseException) -> bool:
        """Whether an error came up while machines were made or released, not in a test."""
        return isinstance(error, NxcError) and any(error is own for own in self._own_errors)

    @property
    def _controller_looks(self) -> bool:
        """Whether the controller of pytest-xdist sees whether there is a backend, and tells."""
        return self.worker is not None and bool(self.worker["whole"])

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note who needs which machines, now that it is known which tests run.

        :raise pytest.UsageError: if there is no backend that they can run on.
        """
        for item in session.items:
            if bed := bed_of(item):
                bed.pending.add(item)
        for bed in self._beds.values():
            if bed.pending and not self._controller_looks:
                self.backend(bed.composition)  # chosen before anything is made

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Let no test try again what failed for an earlier one."""
        self._item = item
        bed = bed_of(item)
        if bed is None:
            return
        self.session  # noqa: B018 (it is there from the test's first event on)
        if bed.failure is not None:
            error = DeploymentError(
                f"composition {bed.composition.name} failed before: {bed.failure}"
            )
            self._own_errors.append(error)
            raise error

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object]
    ) -> Generator[None, object, object]:
        """Note who holds machines beyond a test: a user's fixture of a wider scope."""
        bed = bed_of(self._item) if self._item else None
        own = getattr(fixturedef.func, "__module__", "") == OWN_FIXTURES
        if bed and not own and bed.names & set(fixturedef.argnames):
            bed.users.add(fixturedef)
        return (yield)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[object]) -> None:
        """A fixture let go of what it held."""
        for bed in self._beds.values():
            bed.users.discard(fixturedef)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None]:
        """Release the machines that nobody needs any more; an error is this test's."""
        try:
            yield
        finally:
            for bed in self._beds.values():
                bed.pending.discard(item)
            self._forget_others_tests(nextitem)
            self.release(everything=nextitem is None)

    def _forget_others_tests(self, nextitem: pytest.Item | None) -> None:
        """A worker that gets whole compositions runs no more of one when it has left it."""
        if self.worker and self.worker["whole"]:
            here = bed_above(nextitem) if nextitem else None
            for bed in self._beds.values():
                if bed.driver and bed is not here:
                    bed.pending.clear()

    def release(self, *, everything: bool = False) -> None:
        """Release machines.

        :param everything: also those that somebody needs.
        :raise Exception: what went wrong; the rest is released nevertheless.
        """
        errors = []
        for bed in self._beds.values():
            if bed.driver and (everything or not (bed.pending or bed.users)):
                try:
                    self._close(bed.driver)
                except Exception as error:
                    errors.append(error)
                # An interrupt leaves it here for the end of the run.
                bed.driver = None
        self._own_errors += errors
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup("machines could not be released", errors)

    def _close(self, driver: Driver) -> None:
        if self.options.keep:
            self._kept.append(driver.keep_notice())
        driver.close()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Release what is left: after an interrupt this is all there was."""
        try:
            yield
        finally:
            try:
                with closing(self._session) if self._session else nullcontext():
                    self.release(everything=True)
            except Exception as error:
                self._left.append(f"{type(error).__name__}: {error}")
            self._conclude(session)

    def _conclude(self, session: pytest.Session) -> None:
        """Tell the controller how it ended, or end for all workers."""
        if self.worker is not None:
            output = {"kept": self._kept, "left": self._left, "artifacts": self.artifacts.kept}
            session.config.workeroutput[XDIST] = output  # type: ignore[attr-defined]
            return
        if self._left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        kept = self.artifacts.kept or bool(self._left)
        self._artifacts_at = self.artifacts.close(kept=kept)

    def take_over(self, output: Mapping[str, Any] | None) -> None:
        """Take what a worker of pytest-xdist concluded.

        :param output: None if it crashed.
        """
        if output is None:
            self.artifacts.kept = True
            return
        self._kept += output["kept"]
        self._left += output["left"]
        self.artifacts.kept |= output["artifacts"]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was kept, and what could not be released."""
        places = [_shortened(self._artifacts_at)] if self._artifacts_at else []
        for title, texts in (
            ("artifacts", places),
            ("machines kept", self._kept),
            ("not released", self._left),
        ):
            if texts:
                terminalreporter.write_sep("=", f"nxc: {title}")
                for text in texts:
                    terminalreporter.write_line(text)


def _shortened(path: Path) -> str:
    """A path as a user at the prompt would write it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def end_on_sigterm() -> Callable[[], None]:
    """Turn the first SIGTERM into an orderly end; the second one kills.

    :return: undoes it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return lambda: None

    def restore() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def terminate(number: int, frame: FrameType | None) -> None:
        restore()
        raise Terminated("SIGTERM")

    signal.signal(signal.SIGTERM, terminate)
    return restore
