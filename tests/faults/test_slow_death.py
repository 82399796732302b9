"""A machine that dies slowly, as on a host that has much else to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nxc_testing import connection
from nxc_testing.composition import load
from nxc_testing.errors import MachineDied
from nxc_testing.launch import Settings, open_driver
from nxc_testing.machine import Machine
from nxc_testing.session import Session

LENGTH = 1000.25
"""Seconds; nothing else on this host sleeps as long."""

COMPOSITION = '[composition]\nname = "c"\nimage = "none"\n[roles.one]\n'


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "composition.toml").write_text(COMPOSITION)
    session = Session(tmp_path)
    with open_driver(load(tmp_path), Settings(backend="fake"), session) as driver:
        yield driver.machine("one")
    session.close()


def test_nothing_that_it_kills_is_taken_for_an_end_of_its_own(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is the command's status the test's, nor was only the shell lost."""
    monkeypatch.setattr(connection, "DEATH_NOTICE", 0.01)
    at_once = psutil.Process.kill

    def slowly(process: psutil.Process) -> None:
        at_once(process)
        time.sleep(0.1)

    machine.succeed("true")
    errors: list[BaseException] = []

    def command() -> None:
        try:
            machine.execute(f"sleep {LENGTH}")
        except MachineDied as error:
            errors.append(error)

    running = threading.Thread(target=command)
    running.start()
    machine.wait_until_succeeds(f"pgrep -xf 'sleep {LENGTH}'", 10)
    monkeypatch.setattr(psutil.Process, "kill", slowly)
    machine.node.kill()
    running.join(10)
    assert [type(error) for error in errors] == [MachineDied]
