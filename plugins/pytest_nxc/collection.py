"""How compositions are collected: a directory with machines of its own, and its testScript."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from nxc_testing import testscript
from nxc_testing.errors import ConfigError
from pytest_nxc import fixtures
from pytest_nxc.lifetime import BED, Lifetime, bed_above

if TYPE_CHECKING:
    from nxc_testing.composition import Composition, TestScript
    from nxc_testing.driver import Driver

__tracebackhide__ = True

Style = Literal["long", "short", "line", "no", "native", "value", "auto"] | None

FILE_NAME = "composition.toml"
ITEM_NAME = "testScript"

PROBLEM = pytest.StashKey[str]()
"""On the directory of a composition that cannot be read."""
SCRIPT = pytest.StashKey["TestScript"]()
"""On the item of a testScript."""


class BrokenComposition(pytest.Directory):
    """A directory whose composition cannot be read: nothing in it can be collected."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Tell what is wrong."""
        raise self.CollectError(self.stash[PROBLEM])


class ScriptFile(pytest.File):
    """A file that leads to a testScript: composition.toml, or the script itself."""

    def collect(self) -> Iterable[pytest.Item]:
        """Give the testScript as one item."""
        script = _script_above(self)
        if script is None:
            return
        try:
            empty = testscript.is_empty(testscript.check(script))
        except ConfigError as error:
            raise self.CollectError(str(error)) from error
        run = _run_nothing if empty else _runner(script)
        item = ScriptItem.from_parent(self, name=ITEM_NAME, callobj=run)
        item.stash[SCRIPT] = script
        yield item


class ScriptItem(pytest.Function):
    """A testScript as a test: a function of the fixture `driver` that runs it."""

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it is: in the script, not in this plugin."""
        return self.stash[SCRIPT].file, 0, self.name

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Style = "short"
    ) -> Any:  # noqa: ANN401 (the type is not public)
        """Show a line of source for each frame: a script's first frame is the whole script."""
        if self.config.getoption("tbstyle", "auto") != "auto":
            return super().repr_failure(excinfo)
        return super(pytest.Function, self).repr_failure(excinfo, style=style)


def _runner(script: TestScript) -> Callable[[Driver], None]:
    def run(driver: Driver) -> None:
        testscript.run(script, driver, prepare=pytest.register_assert_rewrite)

    return run


def _run_nothing() -> None:
    """The test of a script that is empty, and meant to be: it needs no machines."""


class Collection:
    """A plugin that finds compositions.

    :param lifetime: where their machines will live.
    """

    def __init__(self, lifetime: Lifetime):
        self._lifetime = lifetime
        self._roles: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_directory(
        self, path: Path, parent: pytest.Collector
    ) -> Generator[None, pytest.Collector | None, pytest.Collector | None]:
        """Give a composition's directory its fixtures, whoever collects it."""
        node = yield
        if node is None or not (path / FILE_NAME).is_file():
            return node
        try:
            composition = self._load(path)
        except ConfigError as error:
            broken: pytest.Collector = BrokenComposition.from_parent(parent, path=path)
            broken.stash[PROBLEM] = str(error)
            return broken
        node.stash[BED] = fixtures.register(node, composition, self._lifetime)
        return node

    def _load(self, path: Path) -> Composition:
        """Read a composition, with those of the run's counts that are meant for it."""
        from nxc_testing.backends.capabilities import needed_by  # noqa: PLC0415 (not cheap)
        from nxc_testing.composition import load, with_counts  # noqa: PLC0415 (not cheap)

        composition = load(path / FILE_NAME)
        needed_by(composition)
        roles = {role.name for role in composition.roles}
        self._roles |= roles
        counts = [count for count in self._lifetime.options.role if _role_of(count) in roles]
        return with_counts(composition, counts, self._lifetime.options.roles)

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
        """Collect a composition's testScript from composition.toml.

        A script called `test_script.py` is no module of tests for all that; it is collected
        from itself only where it was named on the command line.
        """
        collectors = yield
        if file_path.name == FILE_NAME and BED in parent.stash:
            return [*collectors, ScriptFile.from_parent(parent, path=file_path)]
        script = _script_above(parent)
        if script is None or script.file != file_path:
            return collectors
        named = parent.session.isinitpath(file_path)
        return [ScriptFile.from_parent(parent, path=file_path)] if named else []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """See that every count of the command line was meant for some composition.

        :raise pytest.UsageError: if one was not.
        """
        counts = session.config.getoption("nxc_role") or ()
        strange = [count for count in counts if _role_of(count) not in self._roles]
        if self._roles and strange and not session.testsfailed:
            raise pytest.UsageError(
                f"--nxc-role {strange[0]}: no composition here has such a role;"
                f" there are {', '.join(sorted(self._roles))}"
            )


def _role_of(count: str) -> str:
    """The role that a `--nxc-role` is about."""
    return count.partition("=")[0].strip()


def _script_above(node: pytest.Collector) -> TestScript | None:
    """The testScript of the composition that a node is in."""
    bed = bed_above(node)
    return bed.composition.test_script if bed else None
