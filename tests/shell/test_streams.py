"""What goes in and out of a command: whole, unmixed, untouched, and as it comes."""

from __future__ import annotations

import hashlib
import random
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest
from shell_lab import PATIENCE, Place, run, wait_until

from nxc_testing.composition.model import ShellMode
from nxc_testing.errors import MachineUsageError
from nxc_testing.events import Stream
from nxc_testing.shell import Shell, prepare

ANY_BYTES = random.Random(1).randbytes(3 << 20)
DIGEST = hashlib.sha256(ANY_BYTES).hexdigest().encode()


class Seen:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.printed: defaultdict[tuple[Stream, bool], bytes] = defaultdict(bytes)
        self.held_by: list[int] = []

    def output(self, command: int, stream: Stream, data: bytes, late: bool) -> None:
        self.printed[stream, late] += data

    def held(self, command: int) -> None:
        self.held_by.append(command)


def pieces(data: bytes, size: int = 100_000) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def test_stdout_and_stderr_are_apart(shell: Shell) -> None:
    result = run(shell, "echo out; echo err >&2; echo out again; echo err again >&2")
    assert (result.stdout, result.stderr) == (b"out\nout again\n", b"err\nerr again\n")


def test_complaints_name_bash_and_line(shell: Shell) -> None:
    assert run(shell, "nonexistent-command").stderr == (
        b"bash: line 1: nonexistent-command: command not found\n"
    )


def test_any_bytes_come_through(shell: Shell) -> None:
    result = run(shell, "cat", stdin=pieces(ANY_BYTES))
    assert hashlib.sha256(result.stdout).hexdigest().encode() == DIGEST


def test_any_bytes_go_in(shell: Shell) -> None:
    assert run(shell, "sha256sum", stdin=pieces(ANY_BYTES)).stdout.split()[0] == DIGEST


def test_empty_input_ends_at_once(shell: Shell) -> None:
    assert run(shell, "cat; echo end", stdin=iter(())).stdout == b"end\n"


def test_input_that_is_not_read_holds_nothing_up(shell: Shell) -> None:
    result = run(shell, "head -c 3; exit 4", stdin=pieces(ANY_BYTES))
    assert (result.status, result.stdout) == (4, ANY_BYTES[:3])


def test_input_that_fails_ends_the_command(place: Place, shell: Shell) -> None:
    def broken() -> Iterator[bytes]:
        yield b"some"
        raise OSError("the disk is broken")

    length = secrets.randbits(40)
    with pytest.raises(OSError, match="the disk is broken"):
        run(shell, f"sleep {length}", stdin=broken())
    assert place.waits_until_gone(f"sleep {length}")


def test_a_sink_takes_the_output_instead(shell: Shell) -> None:
    taken: list[bytes] = []
    result = shell.run(prepare("seq 100000", ShellMode.STRICT), PATIENCE, sink=taken.append)
    assert result.stdout == b""
    assert b"".join(taken).splitlines()[-1] == b"100000"


def test_a_sink_that_fails_ends_the_command_and_no_other(shell: Shell) -> None:
    def full(_: bytes) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        shell.run(prepare("yes", ShellMode.STRICT), PATIENCE, sink=full)
    assert run(shell, "echo next").stdout == b"next\n"


@pytest.mark.parametrize("mode", ShellMode, ids=lambda mode: mode.value)
def test_a_long_command(shell: Shell, mode: ShellMode) -> None:
    text = secrets.token_hex(1 << 19)
    result = run(shell, f"x={text}; echo ${{#x}}; echo $x | sha256sum", mode=mode)
    digest = hashlib.sha256(text.encode() + b"\n").hexdigest()
    assert result.stdout.split() == [b"1048576", digest.encode(), b"-"]


def test_a_long_command_that_asks_about_its_shell(shell: Shell) -> None:
    text = secrets.token_hex(1 << 19)
    result = run(shell, f"x={text}; trap 'echo ${{#x}}' EXIT; exit 3")
    assert (result.status, result.stdout) == (3, b"1048576\n")


def test_a_command_with_a_nul_is_refused() -> None:
    with pytest.raises(MachineUsageError, match="NUL byte"):
        prepare("echo a\0b", ShellMode.STRICT)


def test_a_flood_without_a_newline(shell: Shell) -> None:
    result = run(shell, "head -c 20000000 /dev/zero")
    assert len(result.stdout) == 20_000_000
    assert not result.stdout.strip(b"\0")


def test_floods_on_both_streams(shell: Shell) -> None:
    result = run(shell, "seq 300000 & seq 300000 >&2; wait")
    assert result.stdout == result.stderr
    assert result.stdout.splitlines()[-1] == b"300000"


def test_output_is_told_while_the_command_runs(place: Place) -> None:
    seen = Seen()
    shell = place.shell(seen)
    goes_on = threading.Event()

    def until_told() -> Iterator[bytes]:
        goes_on.set()
        assert wait_until(lambda: seen.printed[Stream.STDOUT, False] == b"first\n")
        yield b"go on\n"

    result = run(shell, "echo first; read -r line; echo second", stdin=until_told())
    assert goes_on.is_set()
    assert result.stdout == b"first\nsecond\n"
    shell.close()


def test_a_command_is_over_when_its_stdout_is_closed(shell: Shell) -> None:
    assert run(shell, "(sleep 0.3; echo late) & echo early").stdout == b"early\nlate\n"


def test_it_is_told_that_a_background_job_holds_stdout(place: Place) -> None:
    seen = Seen()
    shell = place.shell(seen)
    run(shell, "true")
    assert seen.held_by == []
    run(shell, "sleep 0.3 & true")
    assert len(seen.held_by) == 1
    shell.close()


def test_what_a_daemon_says_later_is_late(place: Place) -> None:
    seen = Seen()
    shell = place.shell(seen)
    result = run(shell, "(sleep 0.5; echo from the daemon >&2) >/dev/null & echo now >&2")
    assert result.stderr == b"now\n"
    assert run(shell, "echo other >&2").stderr == b"other\n"
    assert wait_until(lambda: seen.printed[Stream.STDERR, True] == b"from the daemon\n")
    assert seen.printed[Stream.STDERR, False] == b"now\nother\n"
    shell.close()


def test_a_daemon_with_our_stderr_lives_on_when_the_shell_is_closed(place: Place) -> None:
    shell = place.shell()
    length = secrets.randbits(40)
    daemon = f"trap 'exit 9' PIPE; echo one >&2; sleep 1; echo two >&2; exec sleep {length}"
    run(shell, f"({daemon}) >/dev/null &")
    shell.close()
    assert place.waits_until_running(f"sleep {length}")
    place.kill(*place.running(f"sleep {length}"))


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "feedfacefeedface")
    return "feedfacefeedface"


@pytest.mark.usefixtures("token")
def test_output_that_imitates_the_messages_is_output(place: Place) -> None:
    shell = place.shell()
    forged = b"".join(b"feedfacefeedface D %d 1\n0" % number for number in range(1, 50))
    result = run(shell, "cat; cat /dev/null >&2; exit 7", stdin=iter([forged]))
    assert (result.status, result.stdout) == (7, forged)
    shell.close()


def together(count: int, work: Callable[[int], None]) -> list[BaseException]:
    failures: list[BaseException] = []

    def run_one(index: int) -> None:
        try:
            work(index)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run_one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def mixed_nothing(shell: Shell, threads: int, each: int) -> None:
    def work(index: int) -> None:
        for number in range(each):
            mark = f"{index}.{number}"
            size = (index * 7919 + number * 104729) % 50_000
            command = (
                f"echo {mark}; head -c {size} /dev/zero; echo {mark} >&2; exit {number % 250}"
                if number % 10 == 0
                else f"echo {mark}; echo {mark} >&2; exit {number % 250}"
            )
            result = run(shell, command, 300)
            padding = b"\0" * size if number % 10 == 0 else b""
            line = f"{mark}\n".encode()
            assert result.status == number % 250
            assert result.stdout == line + padding
            assert result.stderr == line

    assert together(threads, work) == []


def test_outputs_of_many_at_once_are_never_mixed(own_shell: Shell) -> None:
    mixed_nothing(own_shell, 32, 12)


@pytest.mark.slow
def test_outputs_of_very_many_are_never_mixed(own_shell: Shell) -> None:
    mixed_nothing(own_shell, 32, 320)


def test_commands_run_side_by_side(own_shell: Shell) -> None:
    barrier = f"/tmp/nxc-barrier.{secrets.token_hex(4)}"
    run(own_shell, f"mkdir {barrier}")
    gather = (
        f"touch {barrier}/$BASHPID; until [[ $(ls {barrier} | wc -l) = 12 ]]; do sleep 0.05; done"
    )
    assert together(12, lambda _: check(own_shell, gather)) == []
    run(own_shell, f"rm -r {barrier}")


def check(shell: Shell, command: str) -> None:
    assert run(shell, command).status == 0
