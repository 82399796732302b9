"""The driver of machines that are processes of this host."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

from nxc_testing.backends.fake import FakeBackend
from nxc_testing.compat import make_command, upstream_modules
from nxc_testing.composition import Composition, Network, Role, TestScript, make_plan
from nxc_testing.driver import Driver, side_by_side
from nxc_testing.errors import (
    ConfigError,
    DeploymentError,
    MachineError,
    RequestedAssertionFailed,
    StartFailed,
    TestScriptError,
)
from nxc_testing.events import Event, SectionFinished, SectionStarted
from nxc_testing.machine import Machine
from nxc_testing.session import Session

MakeDriver = Callable[..., Driver]


@pytest.fixture
def make_driver(tmp_path: Path) -> Iterator[MakeDriver]:
    """Make drivers; they are released at the end."""
    with ExitStack() as stack:

        def make(*roles: Role, networks: int = 1, script: str | None = None) -> Driver:
            file = tmp_path / "test_script.py"
            if script is not None:
                file.write_text(script)
            composition = Composition(
                "unit",
                tmp_path,
                tmp_path / "composition.toml",
                roles,
                tuple(Network(f"net{number}") for number in range(networks)),
                test_script=TestScript(file) if script is not None else None,
            )
            session = Session(tmp_path)
            stack.callback(session.close)
            plan = make_plan(composition, {role.name: "none" for role in roles})
            driver = Driver(composition, FakeBackend().deploy(plan, session), session, "fake")
            stack.callback(driver.close)
            return driver

        yield make


@pytest.fixture
def driver(make_driver: MakeDriver) -> Driver:
    return make_driver(Role("one", "none"), Role("two", "none"))


class TestNames:
    def test_a_single_machine_is_called_machine_too(self, make_driver: MakeDriver) -> None:
        symbols = make_driver(Role("only", "none")).symbols()
        assert symbols["machine"] is symbols["only"]

    def test_a_machine_that_is_called_machine_is_that(self, make_driver: MakeDriver) -> None:
        driver = make_driver(Role("machine", "none"), Role("other", "none"))
        assert driver.symbols()["machine"] is driver.machine("machine")

    def test_names_are_spelt_as_python_wants_them(self, make_driver: MakeDriver) -> None:
        symbols = make_driver(Role("my-node", "none", count=2), Role("4th", "none")).symbols()
        assert {"my_node1", "my_node2", "_th"} <= set(symbols)

    def test_a_lone_machine_has_its_numbered_name_too(self, driver: Driver) -> None:
        assert driver.symbols()["one1"] is driver.symbols()["one"] is driver.machines["one1"]

    def test_machines_are_sorted_whatever_the_order_of_roles(self, make_driver: MakeDriver) -> None:
        driver = make_driver(Role("b", "none"), Role("c", "none"), Role("a", "none"))
        assert [machine.name for machine in driver.machines] == ["a", "b", "c"]

    def test_machines_are_a_list(self, driver: Driver) -> None:
        assert len(driver.machines) == 2
        assert driver.machines[0] is driver.machines["one"]
        assert driver.machines[-1:] == [driver.machines["two"]]

    def test_an_unknown_machine_is_an_error_that_names_the_known(self, driver: Driver) -> None:
        with pytest.raises(KeyError, match="no machine 'three'; there are one, two"):
            driver.machines["three"]
        with pytest.raises(ConfigError, match="no machine 'three'; there are one, two"):
            driver.machine("three")

    def test_networks_are_vlans_by_number(self, make_driver: MakeDriver) -> None:
        symbols = make_driver(Role("one", "none"), networks=2).symbols()
        assert symbols["vlans"] == [symbols["vlan1"], symbols["vlan2"]]

    def test_machines_are_listed_by_backend(self, driver: Driver) -> None:
        assert driver.symbols()["machines_qemu"] == driver.symbols()["machines_nspawn"] == []

    def test_a_machine_tells_what_it_is(self, driver: Driver) -> None:
        assert repr(driver.machine("one")) == "<Machine 'one' on fake>"


class TestStartAll:
    def test_all_that_do_not_start_are_named(self, driver: Driver) -> None:
        driver.deployment.close()
        with pytest.raises(StartFailed) as caught:
            driver.start_all()
        lines = str(caught.value).splitlines()
        assert lines[0] == "Failed to start the following machines:"
        assert [line.split(":")[0] for line in lines[1:]] == ["one", "two"]

    def test_it_is_the_error_that_scripts_catch(self, driver: Driver) -> None:
        driver.deployment.close()
        with pytest.raises(MachineError):
            driver.start_all()

    def test_what_is_no_error_of_a_machine_is_not_dressed_up(self, driver: Driver) -> None:
        with pytest.raises(ZeroDivisionError):
            side_by_side(lambda machine: 1 // (len(machine.name) - 3), driver.machines)

    def test_machines_are_done_at_once(self, driver: Driver) -> None:
        """Each waits for the other."""
        met: list[Machine] = []

        def meet(machine: Machine) -> None:
            met.append(machine)
            driver.retry(lambda _: len(met) == 2, timeout=20)

        assert side_by_side(meet, driver.machines) == {}


class TestSubtests:
    def test_a_reporter_wraps_the_body(self, driver: Driver) -> None:
        seen: list[str] = []

        class Report:
            def __init__(self, name: str):
                seen.append(name)

            def __enter__(self) -> None:
                seen.append("begins")

            def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
                seen.append(str(kind))
                return True

        def fail() -> None:
            raise ZeroDivisionError

        driver.subtest_reporter = Report
        with driver.subtest("it works"):
            fail()
        assert seen == ["it works", "begins", str(ZeroDivisionError)]

    def test_begin_and_end_are_told(self, driver: Driver) -> None:
        told: list[Event] = []
        driver.session.events.subscribe(told.append)
        with driver.subtest("it works"):
            pass
        assert [type(event) for event in told] == [SectionStarted, SectionFinished]


class TestScripts:
    def test_a_composition_without_script_says_what_to_do(self, driver: Driver) -> None:
        with pytest.raises(ConfigError, match=r"\[test_script\]"):
            driver.test_script()

    def test_a_script_runs_with_the_globals(self, make_driver: MakeDriver, tmp_path: Path) -> None:
        text = f"machine.succeed('echo on >{tmp_path}/ran')"
        make_driver(Role("one", "none"), script=text).test_script()
        assert (tmp_path / "ran").read_text() == "on\n"

    def test_a_script_that_used_no_machine_is_an_error(self, make_driver: MakeDriver) -> None:
        with pytest.raises(TestScriptError, match="tested nothing"):
            make_driver(Role("one", "none"), script="print(len(machines))").run_tests()


class TestEnd:
    def test_a_kept_deployment_is_left(self, tmp_path: Path) -> None:
        composition = Composition("kept", tmp_path, tmp_path / "c.toml", (Role("one", "none"),), ())
        session = Session(tmp_path)
        deployment = FakeBackend().deploy(make_plan(composition, {"one": "none"}), session)
        try:
            driver = Driver(composition, deployment, session, "fake", keep=True)
            machine = driver.machine("one")
            machine.succeed("sleep 1000 >/dev/null 2>&1 &")
            driver.close()
            assert machine.is_up()
            notice = driver.keep_notice().splitlines()
            assert notice[0].startswith("one: cd ")
            assert notice[-1].startswith("remove: ")
        finally:
            deployment.close()
            session.close()

    def test_a_block_releases(self, driver: Driver) -> None:
        with driver:
            driver.start_all()
        assert not any(machine.is_up() for machine in driver.machines)
        with pytest.raises(DeploymentError):
            driver.machine("one").start()


class TestUpstreamModules:
    @pytest.mark.parametrize(
        "statement",
        [
            "from test_driver.errors import MachineError, RequestedAssertionFailed",
            "from test_driver.machine import BaseMachine, Machine, NspawnMachine, QemuMachine",
            "from test_driver.machine import make_command, retry",
            "from test_driver.machine.qmp import QMPAPIError",
            "from test_driver.driver import Driver",
            "from test_driver.logger import AbstractLogger, CompositeLogger, rootlog",
            "from test_driver.polling_condition import PollingCondition, PollingConditionError",
            "from test_driver.vlan import VLan",
            "from test_driver.debug import Debug",
            "import test_driver; test_driver.machine.qmp.QMPAPIError",
            "import test_driver.errors as e; assert e.__name__ == 'test_driver.errors'",
        ],
    )
    def test_they_can_be_imported_inside(self, driver: Driver, statement: str) -> None:
        with upstream_modules(driver):
            exec(statement, {})  # noqa: S102 (what a script does)

    def test_their_errors_are_ours(self, driver: Driver) -> None:
        names: dict[str, type[Exception]] = {}
        with upstream_modules(driver):
            exec("from test_driver.errors import RequestedAssertionFailed as error", names)  # noqa: S102
        assert names["error"] is RequestedAssertionFailed

    def test_what_they_have_not_is_an_import_error(self, driver: Driver) -> None:
        with upstream_modules(driver), pytest.raises(ImportError, match="Nothing"):
            exec("from test_driver.machine import Nothing", {})  # noqa: S102

    def test_outside_they_are_not_there(self, driver: Driver) -> None:
        before = set(sys.modules)
        with upstream_modules(driver):
            pass
        assert set(sys.modules) == before

    def test_a_users_own_module_of_the_name_is_as_before(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = ModuleType("test_driver")
        monkeypatch.setitem(sys.modules, "test_driver", own)
        with upstream_modules(driver):
            assert sys.modules["test_driver"] is not own
        assert sys.modules["test_driver"] is own

    def test_a_script_that_fails_leaves_none(self, driver: Driver) -> None:
        with pytest.raises(ZeroDivisionError), upstream_modules(driver):
            raise ZeroDivisionError
        assert "test_driver.errors" not in sys.modules

    def test_they_can_be_entered_twice(self, driver: Driver) -> None:
        with upstream_modules(driver):
            with upstream_modules(driver):
                pass
            exec("from test_driver.errors import MachineError", {})  # noqa: S102


class TestMakeCommand:
    def test_words_stay_as_they_are(self, driver: Driver) -> None:
        words = ["printf", "%s|", "a b", "$HOME", "it's", "", 7, Path("/x")]
        printed = driver.machine("one").succeed(make_command(words))
        assert printed == "a b|$HOME|it's||7|/x|"
