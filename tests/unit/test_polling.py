"""Polling conditions by themselves; with machines they are in the conformance suite."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from nxc_testing.errors import PollingConditionError, WaitTimeout
from nxc_testing.polling import PollingCondition


def condition(*answers: object, **options: object) -> PollingCondition:
    """One that gives these answers, one after the other; an exception is raised."""
    left = list(answers)

    def answer() -> bool:
        """The answers are good."""
        given = left.pop(0)
        if isinstance(given, Exception):
            raise given
        return given  # type: ignore[return-value]

    return PollingCondition(answer, [], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [True, None, 1, "yes"])
def test_it_holds(answer: object) -> None:
    assert condition(answer).check()


@pytest.mark.parametrize("answer", [False, 0, "", [], ZeroDivisionError("no")])
def test_it_does_not_hold(answer: object) -> None:
    assert not condition(answer).check()


def test_its_error_says_what_does_not_hold_and_why() -> None:
    with pytest.raises(PollingConditionError) as caught:
        condition(ZeroDivisionError("no")).check_if_due()
    assert str(caught.value) == (
        "polling condition failed: The answers are good.: ZeroDivisionError: no"
    )


def test_its_description_can_be_given() -> None:
    with pytest.raises(PollingConditionError, match=r"failed: all is well$"):
        condition(False, description="all is well").check_if_due()


def test_without_docstring_it_is_called_by_its_name() -> None:
    def cluster_is_whole() -> bool:
        return False

    assert PollingCondition(cluster_is_whole, []).description == "cluster_is_whole"


@pytest.mark.parametrize("interval", [3600, timedelta(hours=1), None])
def test_it_is_looked_at_once_in_an_interval(interval: object) -> None:
    polled = condition(True, False, interval=interval)
    polled.check_if_due()
    polled.check_if_due()


def test_without_interval_it_is_looked_at_each_time() -> None:
    polled = condition(True, False, interval=0)
    polled.check_if_due()
    with pytest.raises(PollingConditionError):
        polled.check_if_due()


def test_a_block_begins_with_a_new_look() -> None:
    polled = condition(True, False, interval=3600)
    polled.check_if_due()
    with polled, pytest.raises(PollingConditionError):
        polled.check_if_due()


def test_it_is_active_inside_of_its_block_only() -> None:
    active: list[PollingCondition] = []
    polled = PollingCondition(lambda: True, active)
    with polled:
        assert active == [polled]
    assert active == []


def test_a_failing_block_ends_it_too() -> None:
    active: list[PollingCondition] = []
    with pytest.raises(ZeroDivisionError), PollingCondition(lambda: True, active):
        raise ZeroDivisionError
    assert active == []


def test_it_is_not_looked_at_by_itself() -> None:
    """Its own commands would look at it again, and so on."""
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        polled.check_if_due()

    polled = PollingCondition(look, [], interval=0)
    polled.check_if_due()
    assert looks == [1]


def test_while_one_thread_looks_another_goes_on() -> None:
    inside, leave = threading.Event(), threading.Event()

    def look() -> bool:
        inside.set()
        return leave.wait(30)

    polled = PollingCondition(look, [], interval=0)
    thread = threading.Thread(target=polled.check_if_due)
    thread.start()
    assert inside.wait(30)
    polled.check_if_due()
    leave.set()
    thread.join()


def test_waiting_ends_when_it_holds() -> None:
    condition(False, False, True).wait(timedelta(seconds=30))


@pytest.mark.parametrize("limit", [{"timeout": 0.1}, {"timeout_seconds": timedelta(seconds=0.1)}])
def test_waiting_ends_at_its_deadline(limit: dict[str, float]) -> None:
    with pytest.raises(WaitTimeout, match="cluster"):
        PollingCondition(lambda: False, [], description="cluster").wait(**limit)
