"""`nxc-test ps` and `nxc-test reap`: what they show, and what they dare to touch."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nxc_testing import cli
from nxc_testing.backends.base import Trace
from nxc_testing.errors import ConfigError
from nxc_testing.runs import leftovers
from nxc_testing.runs.journal import Record
from nxc_testing.runs.leftovers import Outcome, Run, State
from nxc_testing.runs.owner import Host, Owner

ME = Owner.of()
GONE = replace(ME, start=ME.start - 1)


class Shelf:
    """The runs that there are, and those that were removed."""

    def __init__(self) -> None:
        self.runs = [
            Run("nxc-running", ME),
            Run("nxc-dead", GONE),
            Run("nxc-kept", GONE, kept=True),
            Run("nxc-theirs", replace(GONE, uid=ME.uid + 1)),
            Run("nxc-elsewhere", replace(GONE, host=Host("other", "other", "1"))),
            Run("nxc-unlabelled"),
        ]
        self.removed: list[str] = []

    def remove(self, run: Run) -> Outcome:
        self.removed.append(run.id)
        return Outcome([f"container {run.id}-one"])


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()
    monkeypatch.setattr(leftovers, "find", lambda: (shelf.runs, []))
    monkeypatch.setattr(leftovers, "remove", shelf.remove)
    return shelf


def nxc_test(*arguments: str) -> int:
    options = cli.parser().parse_args(arguments)
    status = options.run(options)
    assert isinstance(status, int)
    return status


def test_reap_removes_dead_runs_of_this_user_and_no_others(shelf: Shelf) -> None:
    assert nxc_test("reap") == 0
    assert shelf.removed == ["nxc-dead"]


def test_all_removes_kept_runs_and_dead_ones_of_others_too(shelf: Shelf) -> None:
    nxc_test("reap", "--all")
    assert shelf.removed == ["nxc-dead", "nxc-kept", "nxc-theirs"]


@pytest.mark.parametrize("name", ["nxc-kept", "nxc-theirs", "nxc-elsewhere", "nxc-unlabelled"])
def test_what_is_named_is_removed(shelf: Shelf, name: str) -> None:
    nxc_test("reap", name)
    assert shelf.removed == [name]


def test_what_is_named_twice_is_removed_once(shelf: Shelf) -> None:
    nxc_test("reap", "nxc-kept", "nxc-kept")
    assert shelf.removed == ["nxc-kept"]


def test_a_running_run_is_refused_and_no_other_is_removed(shelf: Shelf) -> None:
    with pytest.raises(ConfigError, match=rf"nxc-running is running\n  end its process, {ME.pid}"):
        nxc_test("reap", "nxc-dead", "nxc-running")
    assert shelf.removed == []


def test_an_unknown_run_is_refused(shelf: Shelf) -> None:
    with pytest.raises(ConfigError, match="there is no run 'nxc-none'"):
        nxc_test("reap", "nxc-dead", "nxc-none")
    assert shelf.removed == []


def test_reap_says_what_it_removed(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    nxc_test("reap")
    assert capsys.readouterr().out == "nxc-dead: removed container nxc-dead-one\n"


def test_a_dry_run_removes_nothing(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.runs[1].traces.append(Trace("nxc-dead", "docker", "", things=["network nxc-dead-lan"]))
    nxc_test("reap", "--dry-run")
    assert capsys.readouterr().out == "nxc-dead: would remove network nxc-dead-lan\n"
    assert shelf.removed == []


def test_without_dead_runs_it_says_so(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    del shelf.runs[1]
    assert nxc_test("reap") == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_what_is_in_the_way_is_told_and_fails(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome(["container a"], ["network b: has active endpoints"])
    monkeypatch.setattr(leftovers, "remove", lambda run: outcome)
    assert nxc_test("reap") == 1
    printed = capsys.readouterr()
    assert printed.out == "nxc-dead: removed container a\n"
    assert printed.err == "nxc-dead: network b: has active endpoints\n"


def test_what_could_not_be_looked_at_is_told(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(leftovers, "find", lambda: ([], ["the engine does not answer"]))
    nxc_test("ps")
    assert capsys.readouterr().err == "perhaps not all: the engine does not answer\n"


def test_ps_shows_how_runs_are(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    nxc_test("ps")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["RUN", "STATE", "OWNER"]
    column = head.index("STATE")
    states = {line.split()[0]: line[column:].split()[0] for line in lines}
    assert states == {
        "nxc-running": "running",
        "nxc-dead": "dead",
        "nxc-kept": "kept",
        "nxc-theirs": "dead",
        "nxc-elsewhere": "elsewhere",
        "nxc-unlabelled": "elsewhere",
    }


def test_ps_shows_what_a_run_has(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    machines = ["frontend", "server", "node1", "node2", "node3"]
    shelf.runs = [
        Run(
            "nxc-1",
            ME,
            Path("/run/nxc-1"),
            records=[Record("docker", "x", "oar", machines)],
            started=time.time() - 300,
        )
    ]
    nxc_test("ps")
    line = capsys.readouterr().out.splitlines()[1]
    assert re.split(r"\s{2,}", line) == [
        "nxc-1",
        "running",
        str(ME.pid),
        "docker",
        "oar",
        "frontend, server, node1 and 2 more",
        "5 min",
        "/run/nxc-1",
    ]


def test_a_kept_run_that_still_runs_is_running() -> None:
    assert Run("nxc-1", ME, kept=True).state is State.RUNNING
