"""systemd units: their state, waiting for it, and what the error shows when it does not come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from nxc_testing.errors import MachineUsageError, UnitError, WaitTimeout
from nxc_testing.machine import Machine

USER = "nxc-conformance"

UNITS = {
    "runs": "ExecStart=sleep infinity",
    "slow": "Type=oneshot\nRemainAfterExit=yes\nExecStart=sleep 1",
    "never-ready": "Type=notify\nExecStart=sleep infinity",
    "ends": "Type=oneshot\nExecStart=true",
    "fails": "Type=oneshot\nExecStart=sh -c 'echo its last words; exit 3'",
    "fails-later": "Type=oneshot\nExecStart=sh -c 'sleep 0.5; exit 4'",
    "after-slow": "ExecStart=sleep infinity",
    "idle": "ExecStart=sleep infinity",
}


def unit_file(name: str) -> str:
    """A unit of the suite."""
    after = "[Unit]\nAfter=nxc-slow.service\n" if name == "after-slow" else ""
    return f"{after}[Service]\n{UNITS[name]}\n"


def write_units(machine: Machine, directory: str) -> None:
    """Place the suite's units in a directory."""
    commands = [f"mkdir -p {directory}"]
    for name in UNITS:
        path = f"{directory}/nxc-{name}.service"
        commands.append(f"cat >{path} <<'EOF'\n{unit_file(name)}EOF")
    machine.succeed(*commands)


@pytest.fixture
def units(machine: Machine, system: None) -> Iterator[None]:
    """The suite's units, none of which runs."""
    if machine.execute("test -e /run/systemd/system/nxc-runs.service")[0]:
        write_units(machine, "/run/systemd/system")
        machine.succeed("systemctl daemon-reload")
    yield
    machine.succeed("systemctl stop 'nxc-*.service'; systemctl reset-failed 'nxc-*.service'")


@pytest.mark.usefixtures("units")
class TestWaitForUnit:
    def test_an_active_unit_is_active(self, machine: Machine) -> None:
        machine.start_job("nxc-runs")
        machine.wait_for_unit("nxc-runs")
        machine.wait_for_unit("nxc-runs.service", None, 30)
        machine.wait_for_unit("nxc-runs", timeout=timedelta(seconds=30))

    def test_by_its_name_of_2020(self, machine: Machine) -> None:
        machine.start_job("nxc-runs")
        machine.wait_for_job("nxc-runs")

    def test_an_activating_unit_is_waited_for(self, machine: Machine) -> None:
        machine.systemctl("start --no-block nxc-slow")
        machine.wait_for_unit("nxc-slow", timeout=60)
        assert machine.get_unit_property("nxc-slow", "SubState") == "exited"

    def test_an_inactive_unit_with_a_job_is_waited_for(self, machine: Machine) -> None:
        machine.systemctl("start --no-block nxc-slow nxc-after-slow")
        assert machine.get_unit_property("nxc-after-slow", "ActiveState") == "inactive"
        machine.wait_for_unit("nxc-after-slow", timeout=60)

    def test_an_inactive_unit_without_job_fails_at_once(self, machine: Machine) -> None:
        with pytest.raises(UnitError, match=r'"nxc-idle" is inactive.*no pending jobs'):
            machine.wait_for_unit("nxc-idle")

    def test_a_failed_unit_fails_at_once_and_shows_why(self, machine: Machine) -> None:
        machine.start_job("nxc-fails")
        with pytest.raises(UnitError, match='unit "nxc-fails" reached state "failed"') as caught:
            machine.wait_for_unit("nxc-fails")
        text = str(caught.value)
        assert "ActiveState=failed" in text
        assert "Result=exit-code" in text
        assert "ExecMainStatus=3" in text
        assert "its last words" in text

    def test_a_unit_that_fails_while_it_is_waited_for_ends_the_wait(self, machine: Machine) -> None:
        machine.systemctl("start --no-block nxc-fails-later")
        with pytest.raises(UnitError, match="ExecMainStatus=4"):
            machine.wait_for_unit("nxc-fails-later")

    def test_a_oneshot_that_is_done_fails_and_says_so(self, machine: Machine) -> None:
        machine.start_job("nxc-ends")
        with pytest.raises(UnitError, match="a oneshot that has done its work"):
            machine.wait_for_unit("nxc-ends")

    def test_a_missing_unit_fails_and_says_so(self, machine: Machine) -> None:
        with pytest.raises(UnitError, match="there is no such unit"):
            machine.wait_for_unit("nxc-nowhere")

    @pytest.mark.parametrize("timeout", [0.5, timedelta(seconds=0.5)])
    def test_at_its_deadline_it_shows_the_state(
        self, machine: Machine, timeout: float | timedelta
    ) -> None:
        machine.systemctl("start --no-block nxc-never-ready")
        with pytest.raises(WaitTimeout, match="ActiveState=activating"):
            machine.wait_for_unit("nxc-never-ready", timeout=timeout)

    def test_other_states_can_be_waited_for(self, machine: Machine) -> None:
        machine.wait_for_unit_active_state("nxc-idle", "inactive", timeout=30)
        machine.systemctl("start --no-block nxc-fails-later")
        machine.wait_for_unit_active_state("nxc-fails-later", "failed", timeout=60)


@pytest.mark.usefixtures("units")
class TestSystemctl:
    def test_it_returns_status_and_output(self, machine: Machine) -> None:
        machine.start_job("nxc-runs")
        assert machine.systemctl("is-active nxc-runs") == (0, "active\n")
        assert machine.systemctl("is-active nxc-idle") == (3, "inactive\n")

    def test_jobs_start_and_stop(self, machine: Machine) -> None:
        assert machine.start_job("nxc-runs")[0] == 0
        machine.require_unit_state("nxc-runs")
        assert machine.stop_job("nxc-runs")[0] == 0
        machine.require_unit_state("nxc-runs", "inactive")

    def test_jobs_that_fail_raise_nothing(self, machine: Machine) -> None:
        assert machine.start_job("nxc-fails")[0] == 1
        assert machine.stop_job("nxc-nowhere")[0] == 5

    def test_a_state_that_is_required_and_missing_raises(self, machine: Machine) -> None:
        message = r'"nxc-idle" should be "active" but is "inactive"'
        with pytest.raises(UnitError, match=message):
            machine.require_unit_state("nxc-idle")

    def test_a_unit_has_properties(self, machine: Machine) -> None:
        info = machine.get_unit_info("nxc-idle")
        assert info["Id"] == "nxc-idle.service"
        assert info["ActiveState"] == "inactive"
        assert info["LoadState"] == machine.get_unit_property("nxc-idle", "LoadState") == "loaded"

    def test_a_property_that_no_unit_has_is_refused(self, machine: Machine) -> None:
        with pytest.raises(MachineUsageError, match="no property 'Colour'"):
            machine.get_unit_property("nxc-idle", "Colour")


@pytest.fixture
def user(machine: Machine, system: None) -> str:
    """A user with a systemd of its own and the suite's units."""
    if machine.execute("test -e /lib/systemd/system/user@.service")[0]:
        pytest.skip("the image has no systemd for users")
    if machine.execute(f"id {USER}")[0]:
        machine.succeed(f"useradd -m {USER}")
    number = machine.succeed(f"id -u {USER}").strip()
    machine.succeed(f"systemctl start user@{number}")
    home = machine.succeed(f"getent passwd {USER} | cut -d: -f6").strip()
    write_units(machine, f"{home}/.config/systemd/user")
    machine.succeed(f"chown -R {USER} {home}")
    assert machine.systemctl("daemon-reload", USER) == (0, "")
    return USER


class TestUnitsOfUsers:
    def test_they_start_and_are_waited_for(self, machine: Machine, user: str) -> None:
        assert machine.start_job("nxc-runs", user)[0] == 0
        machine.wait_for_unit("nxc-runs", user)
        machine.wait_for_unit("nxc-runs", user=user, timeout=30)
        assert machine.get_unit_property("nxc-runs", "ActiveState", user) == "active"
        assert machine.get_unit_info("nxc-runs", user)["SubState"] == "running"
        assert machine.stop_job("nxc-runs", user)[0] == 0

    def test_they_are_not_the_machines_own(self, machine: Machine, user: str) -> None:
        machine.start_job("nxc-runs", user)
        with pytest.raises(UnitError, match="no pending jobs"):
            machine.wait_for_unit("nxc-runs")
        machine.stop_job("nxc-runs", user)

    def test_one_that_failed_shows_why(self, machine: Machine, user: str) -> None:
        machine.start_job("nxc-fails", user)
        with pytest.raises(UnitError, match="ExecMainStatus=3"):
            machine.wait_for_unit("nxc-fails", user)
