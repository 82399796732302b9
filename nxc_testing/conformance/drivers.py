"""The driver and a testScript's globals."""

from __future__ import annotations

import json
import os
import pathlib
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest

from nxc_testing.composition.names import SCRIPT_GLOBALS, VLAN, python_name
from nxc_testing.conformance.target import PATIENCE
from nxc_testing.driver import Driver
from nxc_testing.errors import (
    PollingConditionError,
    RequestedAssertionFailed,
    Unsupported,
    WaitTimeout,
)
from nxc_testing.events import Event, Logged, SectionFinished
from nxc_testing.machine import Machine

GLOBALS = """
    BaseMachine Machine NspawnMachine QemuMachine create_machine debug driver dump_machine_ssh
    join_all log machines machines_nspawn machines_qemu os polling_condition retry run_tests
    serial_stdout_off serial_stdout_on start_all subtest t test_script vlan1 vlans
""".split()  # noqa: SIM905 (one word a line would hide what belongs together)
"""Upstream's, over the years."""

SCRIPT = """
import shlex
from test_driver.errors import RequestedAssertionFailed
from test_driver.machine import QemuMachine
from test_driver.machine.qmp import QMPAPIError

start_all()

def name_of(node: QemuMachine) -> str:
    return node.succeed("echo " + shlex.quote(node.name)).strip()

with subtest("machines answer by all their names"):
    assert [name_of(node) for node in machines] == ["alpha", "be-ta"]
    assert name_of(be_ta) == name_of(be_ta1) == machines[1].name
    assert alpha is alpha1 is machines[0]

with subtest("failures are caught by upstream's name"):
    try:
        alpha.succeed("false")
    except RequestedAssertionFailed as error:
        log("caught: " + str(error))
    else:
        raise Exception("nothing was raised")

with subtest("modules and helpers are there without import"):
    record = json.loads(alpha.succeed(make_command(["echo", '{"a b": [1]}'])))
    t.assertEqual(record, {"a b": [1]})
    assert re.search("x+", "axxb") and time.time() and pathlib.Path("/").is_dir() and os.getpid()

tries = []
def third(last_try):
    tries.append(last_try)
    return len(tries) == 3
retry(third, timeout=10)

@polling_condition
def alpha_is_up():
    "alpha is up"
    alpha.succeed("true")

with alpha_is_up:
    be_ta.wait_until_succeeds("true", 60)

with log.nested("a part"), alpha.nested("of it"):
    log.info("the end")
"""


class TestGlobals:
    @pytest.mark.parametrize("name", GLOBALS)
    def test_upstreams_are_there(self, driver: Driver, name: str) -> None:
        assert name in driver.symbols()

    def test_modules_are_there_without_import(self, driver: Driver) -> None:
        symbols = driver.symbols()
        assert [symbols[name] for name in ("json", "os", "pathlib", "re", "time")] == [
            *(json, os, pathlib, re, time)
        ]

    def test_a_machine_has_all_its_names(self, driver: Driver, machine: Machine) -> None:
        symbols = driver.symbols()
        assert symbols["alpha"] is symbols["alpha1"] is machine
        assert symbols["be_ta"] is symbols["be_ta1"] is driver.machine("be-ta")
        assert driver.machines["be-ta"] is driver.machines["be_ta"] is driver.machines[1]

    def test_there_is_no_single_machine_where_there_are_two(self, driver: Driver) -> None:
        assert "machine" not in driver.symbols()

    def test_machines_are_sorted_by_name(self, driver: Driver) -> None:
        assert [machine.name for machine in driver.machines] == ["alpha", "be-ta"]

    def test_no_machine_may_be_called_as_a_global(self, driver: Driver) -> None:
        machines = {
            python_name(name)
            for machine in driver.machines
            for name in (machine.name, *machine.instance.aliases)
        }
        others = {name for name in driver.symbols() if not VLAN.fullmatch(name)} - machines
        assert others <= SCRIPT_GLOBALS

    def test_t_fails_as_the_driver_does(self, driver: Driver) -> None:
        with pytest.raises(RequestedAssertionFailed, match="1 != 2"):
            driver.t.assertEqual(1, 2)  # noqa: PT009 (this is what is tested)

    def test_log_can_be_called(self, driver: Driver, events: list[Event]) -> None:
        driver.log("one")
        driver.log.info("two")
        driver.log.warning("three")
        told = [(e.message, e.level) for e in events if isinstance(e, Logged)]
        assert told == [("one", "info"), ("two", "info"), ("three", "warning")]

    def test_an_error_in_the_log_is_a_failure(self, driver: Driver) -> None:
        with pytest.raises(RequestedAssertionFailed, match="it broke"):
            driver.log.error("it broke")

    def test_a_network_is_a_vlan(self, driver: Driver) -> None:
        (vlan,) = driver.vlans
        assert (vlan.nr, vlan.name) == (1, "lan")
        with pytest.raises(Unsupported, match="vlan1: socket_dir"):
            vlan.socket_dir  # type: ignore[attr-defined]  # noqa: B018 (that is its use)
        with pytest.raises(Unsupported, match="vlan1: stop"):
            vlan.stop()

    def test_other_machines_cannot_be_made(self, driver: Driver) -> None:
        with pytest.raises(Unsupported, match="create_machine"):
            driver.create_machine("run-vm", name="other")

    def test_how_to_reach_the_machines_is_told(self, driver: Driver, events: list[Event]) -> None:
        driver.dump_machine_ssh()
        told = [event.message for event in events if isinstance(event, Logged)]
        assert [line.split(":")[0] for line in told] == ["alpha", "be-ta"]


class TestScripts:
    def test_a_script_of_upstreams_runs_unchanged(self, driver: Driver, tmp_path: Path) -> None:
        script = driver.composition.test_script
        assert script is not None
        script.file.write_text(SCRIPT)
        driver.run_tests()

    def test_it_is_read_anew(self, driver: Driver) -> None:
        script = driver.composition.test_script
        assert script is not None
        script.file.write_text("alpha.succeed('true')")
        driver.test_script()
        script.file.write_text("alpha.succeed('false')")
        with pytest.raises(RequestedAssertionFailed, match="false"):
            driver.test_script()


class TestAllMachines:
    def test_all_start_and_all_end(self, driver: Driver, victim: Machine) -> None:
        for machine in driver.machines:
            machine.shutdown()
        driver.join_all()
        driver.start_all()
        assert all(machine.is_up() for machine in driver.machines)
        assert [machine.succeed("echo on") for machine in driver.machines] == ["on\n", "on\n"]

    def test_waiting_for_all_has_a_deadline(self, driver: Driver, victim: Machine) -> None:
        with pytest.raises(WaitTimeout):
            driver.join_all(timeout=0.2)


class TestSubtest:
    def test_a_failure_goes_on_up_and_is_told(self, driver: Driver, events: list[Event]) -> None:
        with pytest.raises(ZeroDivisionError), driver.subtest("divides"):
            print(1 // 0)
        (finished,) = [event for event in events if isinstance(event, SectionFinished)]
        assert (finished.kind, finished.name) == ("subtest", "divides")
        assert "division" in finished.error


class TestRetry:
    def test_it_ends_when_it_is_true(self, driver: Driver) -> None:
        tries: list[bool] = []

        def third(last_try: bool) -> bool:
            tries.append(last_try)
            return len(tries) == 3

        driver.retry(third)
        assert tries == [False, False, False]

    @pytest.mark.parametrize(
        "limit",
        [
            {"timeout": 0.2},
            {"timeout": timedelta(seconds=0.2)},
            {"timeout_seconds": 0.2},
        ],
    )
    def test_at_its_deadline_it_tries_once_more_and_says_so(
        self, driver: Driver, limit: dict[str, float]
    ) -> None:
        tries: list[bool] = []
        with pytest.raises(RequestedAssertionFailed, match=r"timed out after .*timeout=0\.2"):
            driver.retry(tries.append, **limit)  # type: ignore[arg-type]
        assert tries[-1]
        assert not any(tries[:-1])

    def test_the_last_try_counts(self, driver: Driver) -> None:
        driver.retry(lambda last_try: last_try, 0.1)

    def test_what_it_raises_ends_it(self, driver: Driver) -> None:
        with pytest.raises(ZeroDivisionError):
            driver.retry(lambda _: 1 / 0 > 0)


class TestPollingCondition:
    def test_it_is_looked_at_before_a_command(
        self, driver: Driver, machine: Machine, scratch: str
    ) -> None:
        holds = [True]

        @driver.polling_condition(interval=0, description="it holds")
        def condition() -> bool:
            return holds[0]

        with condition:
            machine.succeed("true")
            holds[0] = False
            with pytest.raises(PollingConditionError, match="it holds"):
                machine.succeed(f"touch {scratch}/file")
        machine.fail(f"test -e {scratch}/file")

    def test_it_ends_a_wait(self, driver: Driver, machine: Machine, scratch: str) -> None:
        looks: list[int] = []

        @driver.polling_condition(seconds_interval=0)
        def condition() -> bool:
            looks.append(1)
            return len(looks) < 4

        with condition, pytest.raises(PollingConditionError, match="condition"):
            machine.wait_for_file(f"{scratch}/none", timeout=PATIENCE)

    def test_it_may_use_machines(self, driver: Driver, machine: Machine, victim: Machine) -> None:
        @driver.polling_condition
        def answers() -> None:
            """The other machine answers."""
            victim.succeed("true")

        with answers:
            assert machine.succeed("echo on") == "on\n"

    def test_what_it_raises_is_told(self, driver: Driver, machine: Machine) -> None:
        @driver.polling_condition
        def broken() -> None:
            """Divides."""
            print(1 // 0)

        with broken, pytest.raises(PollingConditionError, match=r"Divides.*ZeroDivisionError"):
            machine.succeed("true")

    def test_it_is_not_looked_at_more_often_than_asked(
        self, driver: Driver, machine: Machine
    ) -> None:
        looks: list[int] = []
        condition = driver.polling_condition(interval=timedelta(hours=1))(lambda: looks.append(1))
        with condition:
            machine.succeed("true", "true", "true")
        assert looks == [1]

    def test_outside_of_its_block_it_does_not_count(self, driver: Driver, machine: Machine) -> None:
        condition = driver.polling_condition(interval=0)(lambda: False)
        with condition:
            pass
        machine.succeed("true")

    def test_it_can_be_waited_for(self, driver: Driver) -> None:
        looks: list[int] = []

        @driver.polling_condition
        def third() -> bool:
            looks.append(1)
            return len(looks) > 2

        third.wait()
        third.wait(timeout=timedelta(seconds=1))

    def test_at_its_deadline_waiting_for_it_fails(self, driver: Driver) -> None:
        condition = driver.polling_condition(description="never")(lambda: False)
        with pytest.raises(WaitTimeout, match="never"):
            condition.wait(0.2)
