"""Directories and locks on a host where other users may be hostile."""

from __future__ import annotations

import os
import stat
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from nxc_testing.errors import LockTimeout, UnsafePath
from nxc_testing.runs import locks, places
from nxc_testing.runs.locks import host_lock
from nxc_testing.runs.places import private_directory, remove_tree, state_dir

NOBODY = 65534


def as_another_user(action: Callable[[], object]) -> str:
    """Do something in a process of a user who may not read what is closed to others.

    :return: the error that it raised; empty if none.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Of the threads that other tests have left: the child needs nothing that they hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            action()
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader, "rb") as answer:
        return answer.read().decode()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What /tmp/nxc_testing-locks is, elsewhere; others may come there."""
    for above in (tmp_path, *tmp_path.parents):
        if above != Path("/tmp") and above.is_relative_to("/tmp"):
            above.chmod(0o755)
    place = tmp_path / "locks"
    monkeypatch.setattr(locks, "SHARED", place)
    return place


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "runtime"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    return place


class TestPrivateDirectory:
    def test_it_is_open_to_nobody_else(self, tmp_path: Path) -> None:
        assert mode(private_directory(tmp_path / "a")) == 0o700

    def test_one_that_was_open_is_closed(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a").chmod(0o777)
        assert mode(private_directory(tmp_path / "a")) == 0o700

    def test_a_link_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to(tmp_path)
        with pytest.raises(UnsafePath, match="a is in the way: it is no directory"):
            private_directory(tmp_path / "a")

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()
        with pytest.raises(UnsafePath, match="it is no directory"):
            private_directory(tmp_path / "a")

    def test_another_users_is_refused(self, tmp_path: Path) -> None:
        theirs = Path("/")
        if os.geteuid() == 0:
            theirs = tmp_path / "a"
            theirs.mkdir()
            os.chown(theirs, NOBODY, NOBODY)
        with pytest.raises(UnsafePath, match=r"belongs to (nobody|root), not to this user"):
            private_directory(theirs)


class TestStateDirectory:
    def test_it_is_in_the_runtime_directory(self, runtime: Path) -> None:
        assert state_dir() == runtime / "nxc_testing"
        assert mode(state_dir()) == 0o700

    def test_a_link_in_its_place_is_refused(self, runtime: Path, tmp_path: Path) -> None:
        (runtime / "nxc_testing").symlink_to(tmp_path)
        with pytest.raises(UnsafePath):
            state_dir()

    def test_one_below_a_directory_that_all_can_write_to_is_refused(
        self, runtime: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runtime.chmod(0o777)
        # As older releases of platformdirs do, that look at nothing.
        monkeypatch.setattr(
            "platformdirs.user_runtime_dir", lambda name: str(runtime / "nxc_testing")
        )
        with pytest.raises(UnsafePath, match=r"others than .* can write to"):
            state_dir()

    def test_no_warning_comes_without_a_runtime_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        assert state_dir().name == "nxc_testing"


class TestRemoval:
    def test_it_follows_no_link(self, tmp_path: Path) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "data").touch()
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "link").symlink_to(tmp_path / "precious")
        remove_tree(tmp_path / "a")
        assert not (tmp_path / "a").exists()
        assert (tmp_path / "precious" / "data").exists()

    def test_what_is_gone_already_is_no_error(self, tmp_path: Path) -> None:
        remove_tree(tmp_path / "a")

    def test_it_stops_before_a_mount_that_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a" / "mount").mkdir(parents=True)
        (tmp_path / "a" / "mount" / "data").touch()
        monkeypatch.setattr(places, "mounts_in", lambda directory: [tmp_path / "a" / "mount"])
        with pytest.raises(OSError, match="cannot be unmounted"):
            remove_tree(tmp_path / "a")
        assert (tmp_path / "a" / "mount" / "data").exists()


class TestLocks:
    def test_their_directory_is_open_to_all_as_tmp_is(self, shared: Path) -> None:
        assert mode(locks.locks_dir()) == 0o1777

    def test_a_link_in_place_of_their_directory_is_refused(
        self, shared: Path, tmp_path: Path
    ) -> None:
        shared.symlink_to(tmp_path)
        with pytest.raises(UnsafePath, match="in the way"):
            locks.locks_dir()

    def test_a_directory_in_which_all_can_remove_all_is_refused(self, shared: Path) -> None:
        shared.mkdir()
        shared.chmod(0o777)
        with pytest.raises(UnsafePath, match="chmod 1777"):
            locks.locks_dir()

    def test_a_lock_is_held_by_one(self, shared: Path) -> None:
        said: list[str] = []
        with (
            host_lock("a", "run one", 0, said.append),
            pytest.raises(LockTimeout, match=r"lock a was not free in 0 s: run one \(pid \d"),
            host_lock("a", "run two", 0, said.append),
        ):
            pass
        assert said == [said[0]]
        assert said[0].startswith(f"waiting for run one (pid {os.getpid()}, since ")

    def test_a_lock_is_free_after_its_block(self, shared: Path) -> None:
        for _ in range(2):
            with host_lock("a", "run one", 0, print):
                pass

    def test_who_waits_gets_it_at_last(self, shared: Path) -> None:
        waiting = threading.Event()
        got = threading.Event()

        def wait() -> None:
            with host_lock("a", "run two", 30, lambda _: waiting.set()):
                got.set()

        with host_lock("a", "run one", 0, print):
            thread = threading.Thread(target=wait)
            thread.start()
            assert waiting.wait(30)
        thread.join(30)
        assert got.is_set()

    def test_two_users_share_one(self, shared: Path) -> None:
        with host_lock("a", "run one", 0, print):
            pass

        def take() -> None:
            with host_lock("a", "run two", 0, print):
                pass

        assert as_another_user(take) == ""

    def test_another_user_waits_and_is_told_for_whom(self, shared: Path) -> None:
        def take() -> None:
            with host_lock("a", "run two", 0, lambda _: None):
                pass

        with host_lock("a", "run one", 0, print):
            assert as_another_user(take).startswith("LockTimeout: lock a was not free in 0 s: run")

    def test_a_file_that_another_user_has_closed_is_an_error_that_says_so(
        self, shared: Path
    ) -> None:
        theirs = locks.locks_dir() / "a.lock"
        theirs.touch()
        theirs.chmod(0)

        def take() -> None:
            with host_lock("a", "run two", 30, lambda _: None):
                pass

        error = as_another_user(take)
        assert error.startswith(f"UnsafePath: {theirs} cannot be locked (Permission denied): ")

    def test_a_link_in_place_of_a_lock_is_not_followed(self, shared: Path, tmp_path: Path) -> None:
        (locks.locks_dir() / "a.lock").symlink_to(tmp_path / "precious")
        with (
            pytest.raises(UnsafePath, match="cannot be locked"),
            host_lock("a", "run one", 0, print),
        ):
            pass
        assert not (tmp_path / "precious").exists()

    def test_a_link_in_place_of_a_note_is_not_written_through(
        self, shared: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "precious").write_text("kept")
        (locks.locks_dir() / "a.holder").symlink_to(tmp_path / "precious")
        with host_lock("a", "run one", 0, print):
            pass
        assert (tmp_path / "precious").read_text() == "kept"

    def test_a_note_of_another_user_cannot_play_with_the_terminal(self, shared: Path) -> None:
        said: list[str] = []
        with host_lock("a", "run one", 0, print):
            (shared / "a.holder").unlink()
            (shared / "a.holder").write_text("\x1b[2J\x07mallory\n")
            with (
                pytest.raises(LockTimeout, match=r"0 s: \[2Jmallory$"),
                host_lock("a", "run two", 0, said.append),
            ):
                pass

    def test_a_pipe_in_place_of_a_note_does_not_hang(self, shared: Path) -> None:
        said: list[str] = []
        with host_lock("a", "run one", 0, print):
            (shared / "a.holder").unlink()
            os.mkfifo(shared / "a.holder")
            with (
                pytest.raises(LockTimeout, match="another run"),
                host_lock("a", "run two", 0, said.append),
            ):
                pass
