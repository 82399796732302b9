"""Whose a run is: what lives, what is dead, and what cannot be known."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nxc_testing.runs import owner
from nxc_testing.runs.owner import Host, Life, Owner


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host that is known well."""
    host = Host("machine", "boot", "1")
    monkeypatch.setattr(owner, "this_host", lambda: host)
    return host


def test_its_text_names_it() -> None:
    assert Owner.parse(str(Owner.of())) == Owner.of()


@pytest.mark.parametrize("text", ["", "12", "12:3", "12:3.4@a.b.1", "x:1:0@a.b.1", "1:2:3@a.b.c.d"])
def test_another_text_names_nobody(text: str) -> None:
    assert Owner.parse(text) is None


def test_its_text_fits_a_label_of_docker() -> None:
    assert str(Owner.of()).isascii()
    assert len(str(Owner.of())) < 100


def test_this_process_lives() -> None:
    assert Owner.of().life() is Life.ALIVE


def test_a_process_of_another_user_lives() -> None:
    assert Owner.of(1).life() is Life.ALIVE


def test_there_is_no_owner_without_a_process(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(ProcessLookupError):
        Owner.of(sleeper.pid)


def test_a_process_that_has_ended_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    its = Owner.of(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    assert its.life() is Life.DEAD


def test_a_process_that_nobody_waited_for_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    its = Owner.of(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert its.life() is Life.DEAD


def test_a_stopped_process_lives(sleeper: subprocess.Popen[bytes]) -> None:
    its = Owner.of(sleeper.pid)
    sleeper.send_signal(signal.SIGSTOP)
    assert its.life() is Life.ALIVE


def test_a_later_process_of_the_same_number_is_another() -> None:
    me = Owner.of()
    assert replace(me, start=me.start - 1).life() is Life.DEAD


def test_after_a_reboot_of_this_host_it_is_dead(here: Host) -> None:
    assert Owner(1, 1, 0, replace(here, boot="earlier")).life() is Life.DEAD


def test_on_another_host_nothing_is_known_of_it(here: Host) -> None:
    assert Owner(1, 1, 0, Host("other", "other", "1")).life() is Life.UNKNOWN


def test_in_another_container_nothing_is_known_of_it(here: Host) -> None:
    assert Owner(1, 1, 0, replace(here, namespace="2")).life() is Life.UNKNOWN


def test_on_hosts_that_cannot_be_told_apart_nothing_is_known_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owner, "this_host", lambda: Host("", "boot", "1"))
    assert Owner(1, 1, 0, Host("", "earlier", "1")).life() is Life.UNKNOWN


def test_where_proc_hides_it_nothing_is_known_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    me = Owner.of()
    monkeypatch.setattr(owner, "_start", lambda pid: None)
    assert me.life() is Life.UNKNOWN


@pytest.fixture
def machine_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An id of this machine, which a container may have none of."""
    text = "0123456789abcdef0123456789abcdef"
    (tmp_path / "machine-id").write_text(f"{text}\n")
    monkeypatch.setattr(owner, "MACHINE_ID", tmp_path / "machine-id")
    return text


def test_two_hosts_of_one_image_differ(machine_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = owner.this_host.__wrapped__()
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert owner.this_host.__wrapped__().machine != first.machine


def test_the_identity_of_the_host_is_not_told(machine_id: str) -> None:
    assert machine_id[:8] not in str(owner.this_host.__wrapped__())


def test_a_host_without_an_id_cannot_be_told_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "MACHINE_ID", tmp_path / "none")
    assert owner.this_host.__wrapped__().machine == ""
