"""Under pytest-xdist: a composition's tests go to one worker, which alone makes its machines.

pytest-xdist's own groups are lost with pytest 9.2, and a mark would have to be on every test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import pytest

from pytest_nxc.collection import FILE_NAME
from pytest_nxc.lifetime import XDIST, Lifetime, end_on_sigterm


class Worker(Protocol):
    """What is used here of `xdist.workermanage.WorkerController`."""

    workerinput: dict[str, Any]

    @property
    def shutting_down(self) -> bool:
        """Whether it was told to end."""

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        """Let it run tests after those that it has."""

    def shutdown(self) -> None:
        """Let it end after the tests that it has."""


class Scheduling(Protocol):
    """What a scheduler is to pytest-xdist: `xdist.scheduler.protocol.Scheduling`."""

    @property
    def nodes(self) -> list[Worker]:
        """The workers that take part."""

    @property
    def collection_is_completed(self) -> bool:
        """Whether all workers have told what they found."""

    @property
    def tests_finished(self) -> bool:
        """Whether workers need nothing more, not even the test that follows their last one."""

    @property
    def has_pending(self) -> bool:
        """Whether tests are still to end."""

    def add_node(self, node: Worker) -> None:
        """A worker is there; it will tell what it found."""

    def add_node_collection(self, node: Worker, collection: Sequence[str]) -> None:
        """A worker tells what it found."""

    def schedule(self) -> None:
        """Begin, or see to a worker that came later."""

    def mark_test_complete(self, node: Worker, item_index: int, duration: float = 0) -> None:
        """A worker has run a test."""

    def mark_test_pending(self, item: str) -> None:
        """A test is to be run again."""

    def remove_pending_tests_from_node(self, node: Worker, indices: Sequence[int]) -> None:
        """A worker has given tests back."""

    def remove_node(self, node: Worker) -> str | None:
        """A worker has ended.

        :return: the test in which it crashed; None if it had ended all of its tests.
        :raise KeyError: if it took no part.
        """


class Distribution:
    """A plugin of the process that distributes tests; in others it does nothing."""

    def __init__(self, lifetime: Lifetime):
        self._lifetime = lifetime
        self._config = lifetime.config

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Worker) -> None:
        """Tell a worker what is the same for all."""
        node.workerinput[XDIST] = {
            "artifacts": self._lifetime.artifacts.name,
            "whole": self._whole,
        }

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Worker) -> None:
        """Take what a worker has to tell at its end."""
        output: dict[str, Any] = getattr(node, "workeroutput", {})
        self._lifetime.take_over(output.get(XDIST))

    @pytest.hookimpl(optionalhook=True, wrapper=True)
    def pytest_xdist_make_scheduler(
        self, config: pytest.Config
    ) -> Generator[None, Scheduling, Scheduling]:
        """Distribute compositions, where there are any; else pytest-xdist does as it would."""
        others = yield
        return CompositionScheduling(others, self._unit_of, self._begin) if self._whole else others

    @property
    def _whole(self) -> bool:
        every_worker_runs_all = self._config.getoption("dist") == "each"
        return self._lifetime.options.dist == "composition" and not every_worker_runs_all

    def _unit_of(self, nodeid: str) -> str:
        """What goes to one worker together with a test."""
        file, _, rest = nodeid.partition("::")
        composition = _composition_above(self._config.rootpath / file)
        if composition is not None:
            return str(composition)
        match self._config.getoption("dist"):
            case "loadfile":
                return file
            case "loadscope":
                return nodeid.rpartition("::")[0]
            case "loadgroup" if "@" in rest:
                return nodeid.rpartition("@")[2]
        return nodeid

    def _begin(self, units: Sequence[str]) -> bool:
        """Tell what machines the run will use.

        :return: whether it will use any.
        :raise pytest.UsageError: if there is no backend that they can run on.
        """
        from nxc_testing.composition import load  # noqa: PLC0415 (not cheap)

        found = [unit for unit in units if Path(unit, FILE_NAME).is_file()]
        compositions = [load(Path(unit)) for unit in found]
        for composition in compositions:
            self._lifetime.backend(composition)  # in a worker it would be an internal error
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if compositions and reporter and self._config.get_verbosity() >= 0:
            reporter.ensure_newline()
            for line in self._lifetime.introduction(compositions, "one worker for each"):
                reporter.write_line(line)
        if compositions:
            self._config.add_cleanup(end_on_sigterm())
        return bool(compositions)


@cache
def _composition_above(file: Path) -> Path | None:
    """The directory of the composition that a file belongs to."""
    return next((above for above in file.parents if (above / FILE_NAME).is_file()), None)


class CompositionScheduling:
    """Gives workers units of tests, a composition being one; in order, to whoever is free.

    Until it is known whether the run has compositions, pytest-xdist's own scheduler collects;
    without any, it also distributes. It satisfies `xdist.scheduler.protocol.Scheduling`.

    :param others: that scheduler.
    :param unit_of: the name of a test's unit.
    :param begin: told all units; false leaves everything to the other scheduler.
    """

    def __init__(
        self,
        others: Scheduling,
        unit_of: Callable[[str], str],
        begin: Callable[[Sequence[str]], bool],
    ):
        self._others, self._unit_of, self._begin = others, unit_of, begin
        self._collected: dict[Worker, list[str]] = {}
        self._tests: list[str] = []
        self._waiting: deque[list[int]] = deque()
        self._given: dict[Worker, list[int]] = {}
        self._own = self._decided = False

    @property
    def nodes(self) -> list[Worker]:
        """The workers that take part."""
        return list(self._given) if self._own else self._others.nodes

    @property
    def collection_is_completed(self) -> bool:
        """Whether all workers have told what they found."""
        return self._own or self._others.collection_is_completed

    @property
    def tests_finished(self) -> bool:
        """Whether workers need nothing more, not even the test that follows their last one."""
        if not self._own:
            return self._others.tests_finished
        return not self._waiting and all(len(given) < 2 for given in self._given.values())

    @property
    def has_pending(self) -> bool:
        """Whether tests are still to end."""
        if not self._own:
            return self._others.has_pending
        return bool(self._waiting) or any(self._given.values())

    def add_node(self, node: Worker) -> None:
        """A worker is there; it will tell what it found."""
        if not self._own:
            self._others.add_node(node)

    def add_node_collection(self, node: Worker, collection: Sequence[str]) -> None:
        """A worker tells what it found."""
        if not self._own:
            self._collected[node] = list(collection)
            self._others.add_node_collection(node, collection)
        elif list(collection) == self._tests:
            self._given[node] = []
        else:
            # It replaces one that crashed, and the files have changed under the run.
            node.shutdown()

    def schedule(self) -> None:
        """Begin, or see to a worker that came later."""
        if not self._decided:
            self._decided, self._own = True, self._take_over()
        if not self._own:
            self._others.schedule()
            return
        for node in self.nodes:
            self._top_up(node, 1)
        for node in self.nodes:
            self._top_up(node, 2)

    def _take_over(self) -> bool:
        """Take over if there are compositions, and all workers found the same."""
        found = list(self._collected.values())
        if any(tests != found[0] for tests in found):
            return False
        units: dict[str, list[int]] = {}
        for number, test in enumerate(found[0]):
            units.setdefault(self._unit_of(test), []).append(number)
        if not self._begin(list(units)):
            return False
        self._tests = found[0]
        # The longest first: what is short fills the gaps at the end.
        self._waiting.extend(sorted(units.values(), key=len, reverse=True))
        self._given = {node: [] for node in self._collected}
        return True

    def mark_test_complete(self, node: Worker, item_index: int, duration: float = 0) -> None:
        """A worker has run a test."""
        if not self._own:
            self._others.mark_test_complete(node, item_index, duration)
            return
        self._given[node].remove(item_index)
        self._top_up(node, 2)

    def _top_up(self, node: Worker, wanted: int) -> None:
        """Give a worker work. It begins a test only when it knows what comes after it."""
        while len(self._given[node]) < wanted and self._waiting and not node.shutting_down:
            unit = self._waiting.popleft()
            self._given[node] += unit
            node.send_runtest_some(unit)
        if not self._waiting and len(self._given[node]) < 2 and not node.shutting_down:
            node.shutdown()

    def remove_node(self, node: Worker) -> str | None:
        """A worker has ended; what it had not begun goes to others.

        :return: the test in which it crashed; None if it had ended all of its tests.
        :raise KeyError: if it took no part.
        """
        if not self._own:
            self._collected.pop(node, None)
            return self._others.remove_node(node)
        given = self._given.pop(node)
        if not given:
            return None
        crashed, *left = given
        units = groupby(left, key=lambda number: self._unit_of(self._tests[number]))
        self._waiting.extendleft([list(unit) for _, unit in units][::-1])
        for other in self.nodes:
            self._top_up(other, 2)
        return self._tests[crashed]

    def mark_test_pending(self, item: str) -> None:
        """Only schedulers that run tests again need it."""
        self._others.mark_test_pending(item)

    def remove_pending_tests_from_node(self, node: Worker, indices: Sequence[int]) -> None:
        """Only schedulers that take tests back need it."""
        self._others.remove_pending_tests_from_node(node, indices)
