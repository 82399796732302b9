"""The shell and its channel: how it comes up, how it is lost, and what it leaves."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from shell_lab import LENGTHS, PATIENCE, Place, local_channel, run, wait_until

from nxc_testing.backends.base import Channel
from nxc_testing.errors import InfraError, MachineDied, ShellLost
from nxc_testing.shell import Result, Shell
from nxc_testing.shell import shell as shell_module

AGENT = "nxc-agent"


class InThread:
    """Something that a thread does meanwhile, with what came of it."""

    def __init__(self, work: Callable[[], Result]):
        self.result: Result | None = None
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture
def lasting(place: Place) -> Iterator[int]:
    """A length of sleep; whatever sleeps that long is ended after the test."""
    length = next(LENGTHS)
    yield length
    place.kill(*place.running(f"sleep {length}"))


def agent_of(shell: Shell) -> int:
    found = run(shell, "ps -o ppid= -p $PPID").stdout
    return int(found)


def test_close_ends_what_runs(place: Place, own_shell: Shell, lasting: int) -> None:
    command = InThread(lambda: run(own_shell, f"setsid -w sleep {lasting}"))
    assert place.waits_until_running(f"sleep {lasting}")
    own_shell.close()
    command.join()
    assert isinstance(command.error, ShellLost)
    assert place.waits_until_gone(f"sleep {lasting}")


def test_close_leaves_no_agent(place: Place, own_shell: Shell, lasting: int) -> None:
    agent = agent_of(own_shell)
    InThread(lambda: run(own_shell, f"sleep {lasting}"))
    assert place.waits_until_running(f"sleep {lasting}")
    own_shell.close()
    assert wait_until(lambda: agent not in place.running(AGENT))


def test_a_closed_shell_takes_no_command(own_shell: Shell) -> None:
    own_shell.close()
    assert own_shell.closed
    with pytest.raises(ShellLost):
        run(own_shell, "true")


def test_close_may_be_called_twice(own_shell: Shell) -> None:
    own_shell.close()
    own_shell.close()


def test_a_killed_agent_is_told(place: Place, own_shell: Shell, lasting: int) -> None:
    command = InThread(lambda: run(own_shell, f"sleep {lasting}"))
    assert place.waits_until_running(f"sleep {lasting}")
    place.kill(agent_of(own_shell))
    command.join()
    assert isinstance(command.error, ShellLost)
    assert own_shell.closed


def test_that_it_was_closed_later_is_not_why_it_ended(place: Place, lasting: int) -> None:
    told: list[bool] = []

    def lost(closed: bool) -> InfraError:
        told.append(closed)
        return ShellLost("one: it ended")

    shell = Shell("one", place.open_channel(), None, lost)
    command = InThread(lambda: run(shell, f"sleep {lasting}"))
    assert place.waits_until_running(f"sleep {lasting}")
    place.kill(agent_of(shell))
    assert wait_until(lambda: shell.closed)
    shell.close()
    command.join()
    with pytest.raises(ShellLost):
        run(shell, "true")
    assert told == [False, False]


def test_every_waiting_command_is_told_why_at_once(place: Place) -> None:
    def lost(closed: bool) -> InfraError:
        assert not closed
        time.sleep(0.5)
        return MachineDied("one", "its power was cut")

    shell = Shell("one", place.open_channel(), lost=lost)
    agent = agent_of(shell)
    commands = [InThread(lambda: run(shell, "sleep 1000")) for _ in range(20)]
    assert wait_until(lambda: run(shell, "pgrep -fxc 'sleep 1000'").stdout >= b"20\n")
    began = time.monotonic()
    place.kill(agent)
    for command in commands:
        command.join()
    errors = [command.error for command in commands]
    assert all(isinstance(error, MachineDied) for error in errors)
    assert len({id(error) for error in errors}) == 20
    # One after the other they would have taken 10 s.
    assert time.monotonic() - began < 8


def test_a_killed_shell_of_a_command_is_its_status(own_shell: Shell) -> None:
    assert run(own_shell, "kill -9 $$").status == 137
    assert run(own_shell, "echo next").stdout == b"next\n"


def test_a_killed_zygote_ends_its_command(own_shell: Shell) -> None:
    assert run(own_shell, "kill -9 $PPID; sleep 5; echo went on").status == 137
    assert run(own_shell, "echo next").stdout == b"next\n"


def test_killed_idle_zygotes_are_replaced(own_shell: Shell) -> None:
    """What `pkill bash` does; the next command must run, and not be taken for a victim."""
    agent = agent_of(own_shell)
    kill_others = f"kill -9 $(pgrep -P {agent} bash | grep -vx $PPID)"
    for _ in range(20):
        # Two at once, so that there is another one than the command's own.
        first = InThread(lambda: run(own_shell, "sleep 0.2"))
        run(own_shell, "sleep 0.2")
        first.join()
        assert run(own_shell, kill_others).status == 0
        assert run(own_shell, "echo next").stdout == b"next\n"


def test_a_stopped_zygote_is_no_end(place: Place, own_shell: Shell) -> None:
    result = run(own_shell, "kill -STOP $PPID; true", 1)
    assert result.timed_out
    assert run(own_shell, "echo next").stdout == b"next\n"


def test_ping(own_shell: Shell) -> None:
    assert own_shell.ping(PATIENCE)
    own_shell.close()
    with pytest.raises(ShellLost):
        own_shell.ping(PATIENCE)


def test_an_agent_that_is_stopped_does_not_answer(place: Place, own_shell: Shell) -> None:
    agent = agent_of(own_shell)
    place.kill(agent, signal="STOP")
    try:
        assert not own_shell.ping(0.5)
        # What it says at last is the answer to this ping and to no later one.
        assert not own_shell.ping(0.1)
    finally:
        place.kill(agent, signal="CONT")
    assert own_shell.ping(PATIENCE)


def test_a_deadline_holds_while_nothing_is_read(place: Place, own_shell: Shell) -> None:
    """A frozen machine, and a command that no pipe takes at once."""
    agent = agent_of(own_shell)
    place.kill(agent, signal="STOP")
    try:
        result = run(own_shell, f"echo {'x' * 20_000_000}", 0.5)
        assert result.timed_out
        assert result.duration < PATIENCE
    finally:
        place.kill(agent, signal="CONT")
    assert run(own_shell, "echo thawed").stdout == b"thawed\n"


def test_a_long_command_for_a_shell_that_reads_nothing_blocks_no_other(
    place: Place, own_shell: Shell
) -> None:
    zygote = int(run(own_shell, "echo $PPID").stdout)
    place.kill(zygote, signal="STOP")
    long = InThread(lambda: run(own_shell, f"echo {'x' * 1_000_000}", 5))
    time.sleep(0.2)
    assert run(own_shell, "echo other").stdout == b"other\n"
    long.join()
    assert long.result
    assert long.result.timed_out


def test_late_messages_are_no_other_commands(place: Place) -> None:
    """Two users of one series of numbers, as a machine's later shells are."""
    ids = iter(range(1, 1000))
    first = Shell("one", place.open_channel(), ids=ids)
    agent = agent_of(first)
    place.kill(agent, signal="STOP")
    run(first, "exit 5", 0.1)
    place.kill(agent, signal="CONT")
    assert run(first, "sleep 0.2; exit 6").status == 6
    first.close()


def test_nothing_grows(own_shell: Shell) -> None:
    """Descriptors and processes in the machine, and what the driver remembers."""
    agent = agent_of(own_shell)
    count = f"ls /proc/{agent}/fd | wc -l; pgrep -P {agent} | wc -l"
    for _ in range(20):
        run(own_shell, "true")
    before = run(own_shell, count).stdout
    for _ in range(300):
        run(own_shell, "true")
    assert run(own_shell, count).stdout == before


def test_zygotes_that_are_not_needed_go(own_shell: Shell) -> None:
    agent = agent_of(own_shell)
    threads = [InThread(lambda: run(own_shell, "sleep 1")) for _ in range(12)]
    for thread in threads:
        thread.join()
    assert wait_until(
        lambda: int(run(own_shell, f"sleep 1.2; pgrep -P {agent} | wc -l").stdout) <= 6
    )


def test_a_machine_without_perl(tmp_path: os.PathLike[str]) -> None:
    tools = os.path.join(tmp_path, "bin")
    os.mkdir(tools)
    bash = shutil.which("bash")
    assert bash
    os.symlink(bash, os.path.join(tools, "bash"))
    channel = local_channel()
    os.write(channel.writer, f"PATH={tools}\n".encode())
    with pytest.raises(ShellLost, match="one: no shell in the machine: perl is missing in it"):
        Shell("one", channel)


def test_a_far_end_that_is_no_shell_is_quoted() -> None:
    channel = local_channel()
    os.write(channel.writer, b"exec echo 'This account is not available.'\n")
    with pytest.raises(ShellLost, match="it said: This account is not available"):
        Shell("one", channel)


def test_a_far_end_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_module, "START_TIMEOUT", 0.2)
    channel = local_channel()
    os.write(channel.writer, b"exec sleep 3\n")
    with pytest.raises(ShellLost, match="it does not answer"):
        Shell("one", channel)


def test_what_a_channel_says_first_does_not_matter(place: Place) -> None:
    channel = place.open_channel()
    os.write(channel.writer, b"echo 'Welcome!'; echo; printf 'no newline at the end> '\n")
    shell = Shell("one", channel)
    assert run(shell, "echo hi").stdout == b"hi\n"
    shell.close()


def test_signals_that_a_channel_ignores_are_default_for_commands(place: Place) -> None:
    channel = place.open_channel()
    os.write(channel.writer, b"trap '' INT QUIT PIPE HUP TERM\n")
    shell = Shell("one", channel)
    assert run(shell, "grep SigIgn /proc/self/status").stdout == b"SigIgn:\t0000000000000000\n"
    shell.close()


def test_a_command_whose_streams_cannot_be_opened(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a machine that has no /proc any more."""
    source = shell_module.agent_source().replace(b"/proc/AGENT/fd/$_o", b"/no-proc/AGENT/fd/$_o")
    monkeypatch.setattr(shell_module, "agent_source", lambda: source)
    shell = place.shell()
    for _ in range(2):
        with pytest.raises(ShellLost, match="its streams cannot be opened"):
            run(shell, "echo ran")
    shell.close()


def test_more_commands_at_once_than_descriptors(place: Place) -> None:
    """What cannot be started is told, and what was made for it is given back."""
    channel: Channel = place.open_channel()
    os.write(channel.writer, b"ulimit -n 300\n")
    shell = Shell("one", channel)
    commands = [InThread(lambda: run(shell, "sleep 2")) for _ in range(80)]
    for command in commands:
        command.join()
    errors = [command.error for command in commands if command.error]
    assert errors
    assert all(isinstance(error, ShellLost) for error in errors)
    assert "no shell for the command: no pipe: Too many open files" in str(errors[0])
    assert all(command.result.status == 0 for command in commands if command.result)
    assert not shell.closed
    assert wait_until(lambda: run(shell, "true").status == 0)
    shell.close()
