"""Time: what a duration is, what a deadline leaves, and how often a wait looks."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxc_testing import waiting
from nxc_testing.errors import MachineUsageError
from nxc_testing.waiting import Deadline, pause_after, poll, seconds


class Clock:
    """A clock that only runs when somebody sleeps or looks."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now = max(self.now + seconds, math.nextafter(self.now, math.inf))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    with monkeypatch.context() as patch:
        patch.setattr(waiting, "time", clock)
        yield clock


class TestDurations:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (5, 5.0),
            (0, 0.0),
            (0.25, 0.25),
            (timedelta(minutes=1, milliseconds=5), 60.005),
            (None, None),
            (float("inf"), None),
        ],
    )
    def test_numbers_and_timedeltas(
        self, given: waiting.Duration | None, expected: float | None
    ) -> None:
        assert seconds(given) == expected

    @pytest.mark.parametrize("given", [True, "5", -1, float("nan"), timedelta(seconds=-1), b"1"])
    def test_what_is_no_duration_is_refused(self, given: float) -> None:
        with pytest.raises(MachineUsageError, match="duration"):
            seconds(given)


class TestDeadlines:
    def test_it_runs_out(self, clock: Clock) -> None:
        deadline = Deadline(10)
        clock.sleep(4)
        assert (deadline.elapsed(), deadline.remaining(), deadline.expired) == (4, 6, False)
        clock.sleep(7)
        assert (deadline.elapsed(), deadline.remaining(), deadline.expired) == (11, 0, True)

    def test_without_a_limit_it_never_does(self, clock: Clock) -> None:
        deadline = Deadline(None)
        clock.sleep(1e9)
        assert (deadline.remaining(), deadline.expired, deadline.limit(None)) == (None, False, None)

    def test_inner_steps_get_what_is_left_or_less(self, clock: Clock) -> None:
        deadline = Deadline(10)
        clock.sleep(7)
        assert (deadline.limit(None), deadline.limit(2), deadline.limit(5)) == (3, 2, 3)

    def test_a_last_look_is_long_enough_to_see(self, clock: Clock) -> None:
        deadline = Deadline(10)
        clock.sleep(9.99)
        assert deadline.look() == waiting.SHORTEST_LOOK
        assert deadline.look(30) == waiting.SHORTEST_LOOK


def seen_after(clock: Clock, event: float, look_takes: float, limit: float | None = None) -> float:
    """When a wait returns that waits for something that happens at a time."""
    start = clock.now

    def look(_: Deadline) -> bool:
        happened = clock.now >= start + event
        clock.sleep(look_takes)
        return happened

    assert poll(look, Deadline(limit)) is (limit is None or event <= limit)
    return clock.now - start


class TestPolling:
    @given(st.floats(0, 3600))
    def test_a_pause_is_less_than_a_tenth_of_the_wait(self, elapsed: float) -> None:
        assert 0 < pause_after(elapsed) <= 0.1 * elapsed + 0.05

    @given(st.floats(0, 3600), st.floats(0, 3600))
    def test_pauses_never_get_shorter(self, one: float, other: float) -> None:
        low, high = sorted((one, other))
        assert pause_after(low) <= pause_after(high)

    @given(st.floats(0, 900))
    def test_it_adds_at_most_a_tenth_and_50_milliseconds(self, event: float) -> None:
        clock = Clock()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(waiting, "time", clock)
            assert seen_after(clock, event, look_takes=0) <= 1.1 * event + 0.05

    @given(st.floats(0, 900), st.floats(0.001, 0.5))
    def test_with_looks_that_take_time_it_adds_two_of_them(
        self, event: float, look_takes: float
    ) -> None:
        clock = Clock()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(waiting, "time", clock)
            seen = seen_after(clock, event, look_takes)
            assert seen <= 1.1 * event + 0.05 + 2.1 * look_takes

    def test_a_long_wait_does_not_look_all_the_time(self, clock: Clock) -> None:
        looks = []
        poll(lambda _: bool(looks.append(clock.now)), Deadline(900))
        assert len(looks) < 600

    @given(st.floats(0, 100), st.floats(0, 0.3))
    def test_it_ends_at_its_deadline_with_a_last_look(self, limit: float, takes: float) -> None:
        clock = Clock()
        start = clock.now
        looks: list[float] = []

        def look(_: Deadline) -> bool:
            looks.append(clock.now - start)
            clock.sleep(takes)
            return False

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(waiting, "time", clock)
            assert not poll(look, Deadline(limit))
        assert looks[-1] >= limit - 1e-6
        assert looks[-1] <= limit + takes + 1e-6
        assert clock.now - start <= limit + 2 * takes + 1e-6

    def test_without_time_it_looks_once(self, clock: Clock) -> None:
        looks = []
        assert not poll(lambda _: bool(looks.append(1)), Deadline(0))
        assert looks == [1]

    def test_what_a_look_raises_ends_it(self) -> None:
        def look(_: Deadline) -> bool:
            raise KeyError("seen")

        with pytest.raises(KeyError):
            poll(look, Deadline(10))


class TestInterruption:
    def test_the_next_look_comes_at_once(self) -> None:
        """The pause would be two seconds by now, of a wait of an hour."""
        died = threading.Event()
        looked: list[bool] = []

        def look(deadline: Deadline) -> bool:
            looked.append(died.is_set())
            if died.is_set():
                raise ConnectionResetError
            died.set()
            return False

        with pytest.raises(ConnectionResetError):
            poll(look, Deadline(3600), interrupted=died)
        assert looked == [False, True]

    def test_a_look_that_stands_it_goes_on_to_the_deadline(self, clock: Clock) -> None:
        died = threading.Event()
        died.set()
        start = clock.now
        assert not poll(lambda _: False, Deadline(1.5), interrupted=died)
        assert clock.now - start == pytest.approx(1.5)

    def test_a_pause_is_cut_short(self) -> None:
        died = threading.Event()
        looks = iter([False, True])
        timer = threading.Timer(0.05, died.set)
        waited: list[float | None] = []
        wait: Callable[[float | None], bool] = died.wait

        def long_wait(timeout: float | None = None) -> bool:
            waited.append(timeout)
            return wait(60)

        died.wait = long_wait  # type: ignore[method-assign]
        timer.start()
        assert poll(lambda _: next(looks), Deadline(None), interrupted=died)
        assert len(waited) == 1
