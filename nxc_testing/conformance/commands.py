"""Commands: their status, their outputs, their end, and what they cannot do to each other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from nxc_testing.composition import ShellMode
from nxc_testing.conformance.target import LENGTHS, eventually
from nxc_testing.errors import (
    CommandFailed,
    CommandSucceeded,
    MachineUsageError,
    RequestedAssertionFailed,
    ShellLost,
)
from nxc_testing.events import CommandFinished, CommandOutput, CommandStarted, Event, Stream
from nxc_testing.machine import Machine


def sleeps(machine: Machine, length: int) -> bool:
    """Whether `sleep LENGTH` runs in a machine."""
    return machine.execute(f"pgrep -xf 'sleep {length}'")[0] == 0


class TestExecute:
    def test_it_returns_status_and_stdout(self, machine: Machine) -> None:
        assert machine.execute("echo out; echo err >&2; exit 3") == (3, "out\n")

    def test_without_check_return_the_status_is_minus_one(self, machine: Machine) -> None:
        assert machine.execute("echo out; exit 3", False) == (-1, "out\n")

    def test_without_check_output_it_does_not_wait(self, machine: Machine, scratch: str) -> None:
        command = f"echo unheard; until test -e {scratch}/go; do sleep 0.05; done; echo"
        assert machine.execute(command, check_output=False) == (-2, "")
        assert machine.execute(f"touch {scratch}/go; echo heard") == (0, "heard\n")

    def test_without_check_output_it_goes_on_and_is_in_the_log(
        self, machine: Machine, scratch: str, events: list[Event]
    ) -> None:
        command = f"sleep 0.2; echo in the log; touch {scratch}/done"
        machine.execute(command, check_output=False)
        machine.wait_for_file(f"{scratch}/done", timeout=30)

        def told() -> bool:
            return any(isinstance(e, CommandOutput) and e.text == "in the log\n" for e in events)

        eventually(told, "its output in the log")

    @pytest.mark.parametrize("timeout", [1, 0.5, timedelta(seconds=0.5)])
    def test_at_its_timeout_the_status_is_124_and_the_output_is_kept(
        self, machine: Machine, timeout: float | timedelta
    ) -> None:
        assert machine.execute("echo so far; sleep 1000", timeout=timeout) == (124, "so far\n")

    def test_the_timeout_is_its_fourth_argument(self, machine: Machine) -> None:
        assert machine.execute("sleep 1000", True, True, 0.2) == (124, "")

    @pytest.mark.parametrize("timeout", [True, -1, "1"])
    def test_what_is_no_duration_is_refused(self, machine: Machine, timeout: float) -> None:
        with pytest.raises(MachineUsageError, match="duration"):
            machine.execute("true", timeout=timeout)

    def test_a_nul_is_refused(self, machine: Machine) -> None:
        with pytest.raises(MachineUsageError, match="NUL"):
            machine.execute("echo a\0b")

    def test_run_gives_bytes_of_both_outputs(self, machine: Machine) -> None:
        result = machine.run(r"printf 'a\0\377'; printf 'b\0\376' >&2; exit 3")
        assert (result.status, result.stdout, result.stderr) == (3, b"a\0\xff", b"b\0\xfe")

    def test_what_is_not_utf8_is_replaced(self, machine: Machine) -> None:
        assert machine.execute(r"printf 'a\377b'") == (0, "a\N{REPLACEMENT CHARACTER}b")


class TestSucceed:
    def test_it_joins_the_outputs_in_order(self, machine: Machine) -> None:
        assert machine.succeed("echo a", "printf b", "echo c") == "a\nbc\n"

    def test_it_takes_many_commands_starred(self, machine: Machine) -> None:
        assert machine.succeed(*[f"echo {i}" for i in range(25)]).split() == [
            str(i) for i in range(25)
        ]

    def test_it_stops_at_the_first_that_fails(self, machine: Machine, scratch: str) -> None:
        with pytest.raises(CommandFailed) as caught:
            machine.succeed(f"touch {scratch}/a", "exit 7", f"touch {scratch}/b")
        assert (caught.value.command, caught.value.status) == ("exit 7", 7)
        assert machine.succeed(f"ls {scratch}") == "a\n"

    def test_its_error_is_the_one_scripts_catch(self, machine: Machine) -> None:
        with pytest.raises(RequestedAssertionFailed):
            machine.succeed("false")

    def test_its_error_shows_command_status_and_both_outputs(self, machine: Machine) -> None:
        with pytest.raises(CommandFailed) as caught:
            machine.succeed("echo to stdout; echo to stderr >&2; exit 5")
        text = str(caught.value)
        assert text.startswith("alpha: command `echo to stdout;")
        assert "(exit code 5)" in text
        assert "stdout:\n    to stdout" in text
        assert "stderr:\n    to stderr" in text

    @pytest.mark.parametrize("timeout", [0.4, timedelta(milliseconds=400)])
    def test_its_timeout_is_told_apart(self, machine: Machine, timeout: float | timedelta) -> None:
        with pytest.raises(CommandFailed, match=r"timeout of 0\.4 s \(exit code 124\)") as caught:
            machine.succeed("sleep 1000", timeout=timeout)
        assert caught.value.timed_out
        assert caught.value.timeout == 0.4

    def test_a_status_of_124_is_no_timeout(self, machine: Machine) -> None:
        with pytest.raises(CommandFailed, match="failed") as caught:
            machine.succeed("exit 124", timeout=60)
        assert not caught.value.timed_out


class TestFail:
    def test_it_returns_the_output_of_what_fails(self, machine: Machine) -> None:
        assert machine.fail("echo a; false", "echo b; exit 9") == "a\nb\n"

    def test_it_raises_where_something_succeeds(self, machine: Machine) -> None:
        with pytest.raises(CommandSucceeded, match="unexpectedly succeeded") as caught:
            machine.fail("false", "echo all is well")
        assert "all is well" in str(caught.value)

    def test_a_timeout_counts_as_failure(self, machine: Machine) -> None:
        machine.fail("sleep 1000", timeout=0.2)


class TestShell:
    @pytest.mark.parametrize(
        "command",
        [
            "false; true",
            "false | cat",
            "echo $NEVER_SET",
            "(exit 3); true",
            "true && false",
            "no-such-command; true",
            "if true",
        ],
    )
    def test_strict_mode_fails(self, machine: Machine, command: str) -> None:
        machine.fail(command)

    @pytest.mark.parametrize(
        ("command", "status"),
        [
            ("exit 3", 3),
            ("exec sh -c 'exit 4'", 4),
            ("kill -9 $$", 137),
            ("kill -TERM $$", 143),
            ("no-such-command", 127),
            ("/etc/passwd", 126),
            ("trap 'exit 6' EXIT; false", 6),
        ],
    )
    def test_the_status_is_exact(self, machine: Machine, command: str, status: int) -> None:
        assert machine.execute(command)[0] == status

    @pytest.mark.parametrize("command", ["echo 'one", 'echo "one', "echo $(", "cat <<EOF", "}"])
    def test_a_broken_command_breaks_no_other(self, machine: Machine, command: str) -> None:
        machine.execute(command)
        assert machine.execute("echo next") == (0, "next\n")

    def test_a_killed_shell_is_replaced(self, machine: Machine) -> None:
        machine.execute("kill -9 $PPID")
        assert machine.succeed("echo next") == "next\n"

    def test_so_is_a_killed_agent(self, machine: Machine) -> None:
        agent = "$(cut -d ' ' -f 4 /proc/$PPID/stat)"
        with pytest.raises(ShellLost, match="may have run in part"):
            machine.execute(f"kill -9 {agent}")
        assert machine.succeed("echo next") == "next\n"

    def test_nothing_is_kept_for_the_next(self, machine: Machine) -> None:
        look = "pwd; echo ${HERE-unset}; umask; ulimit -n; type cd; declare -f"
        before = machine.execute(look)
        machine.succeed("cd /; export HERE=kept; umask 077; ulimit -n 99; cd() { :; }; set +e")
        assert machine.execute(look) == before

    def test_it_is_root_at_home_in_tmp(self, machine: Machine) -> None:
        assert machine.succeed("echo $USER $HOME; pwd") == "root /root\n/tmp\n"

    def test_it_is_bash(self, machine: Machine) -> None:
        assert machine.succeed("a=(one two); [[ ${a[1]} == t* ]] && echo ${a[1]^^}") == "TWO\n"

    def test_stdin_is_empty(self, machine: Machine) -> None:
        assert machine.execute("cat; read line", timeout=10) == (1, "")

    def test_any_length_comes_through(self, machine: Machine) -> None:
        text = "x" * (1 << 20)
        assert machine.succeed(f"echo {text} | wc -c") == f"{len(text) + 1}\n"

    def test_much_output_comes_through_whole(self, machine: Machine) -> None:
        output = machine.succeed("seq 1000000")
        assert output.count("\n") == 1_000_000
        assert output.endswith("\n1000000\n")

    def test_output_without_newline_comes_through(self, machine: Machine) -> None:
        assert machine.succeed("printf 'a\n\nb'") == "a\n\nb"

    def test_nxc_mode_is_not_strict(self, machine: Machine) -> None:
        machine.connection.mode = ShellMode.NXC
        try:
            assert machine.succeed("false; echo $NEVER_SET; cd; pwd; cd -") == "\n/root\n/root\n"
        finally:
            machine.connection.mode = ShellMode.STRICT


class TestEndOfCommands:
    def test_a_job_that_holds_stdout_is_waited_for(self, machine: Machine) -> None:
        assert machine.succeed("(sleep 0.3; echo late) & echo first") == "first\nlate\n"

    def test_a_job_that_does_not_is_not(self, machine: Machine) -> None:
        length = next(LENGTHS)
        machine.succeed(f"sleep {length} >/dev/null 2>&1 &", timeout=30)
        assert sleeps(machine, length)
        machine.succeed(f"pkill -xf 'sleep {length}'")

    @pytest.mark.parametrize(
        "command",
        [
            "sleep {}",
            "sleep {} & wait",
            "setsid sleep {} & wait",
            "trap '' TERM INT HUP; sleep {}",
            "(setsid sh -c 'sleep {}' &) & sleep 1000",
            "sleep {} &",
        ],
    )
    def test_at_the_timeout_its_whole_tree_ends(self, machine: Machine, command: str) -> None:
        length = next(LENGTHS)
        assert machine.execute(command.format(length), timeout=0.5) == (124, "")
        eventually(lambda: not sleeps(machine, length), "the end of the process")

    def test_of_another_user_too(self, machine: Machine, system: None) -> None:
        length = next(LENGTHS)
        command = f"su -s /bin/sh -l nobody -c 'cd /; sleep {length}'"
        assert machine.execute(command, timeout=1)[0] == 124
        eventually(lambda: not sleeps(machine, length), "the end of the process")

    def test_what_is_printed_late_enters_no_other_output(self, machine: Machine) -> None:
        machine.execute("(trap '' TERM; while :; do echo stale; done) & sleep 1000", timeout=0.3)
        assert [machine.succeed("echo fresh") for _ in range(20)] == ["fresh\n"] * 20


class TestSideBySide:
    def test_commands_of_one_machine_run_at_once(self, machine: Machine, scratch: str) -> None:
        """Each ends only when all have begun."""

        def meet(number: int) -> int:
            met = f"test $(ls {scratch} | wc -l) = 8"
            command = f"touch {scratch}/{number}; until {met}; do sleep 0.05; done"
            return machine.execute(command, timeout=30)[0]

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(meet, range(8))) == [0] * 8

    def test_their_outputs_do_not_mix(self, machine: Machine) -> None:
        def speak(number: int) -> list[tuple[bytes, bytes]]:
            command = f"echo out {number}; echo err {number} >&2"
            results = [machine.run(command) for _ in range(20)]
            return [(result.stdout, result.stderr) for result in results]

        with ThreadPoolExecutor(8) as pool:
            for number, outputs in enumerate(pool.map(speak, range(8))):
                expected = (f"out {number}\n".encode(), f"err {number}\n".encode())
                assert outputs == [expected] * 20


class TestSleep:
    @pytest.mark.parametrize(
        "sleep",
        [
            lambda machine: machine.sleep(0.2),
            lambda machine: machine.sleep(secs=0.2),
            lambda machine: machine.sleep(duration=timedelta(seconds=0.2)),
        ],
    )
    def test_the_machine_sleeps(
        self, machine: Machine, events: list[Event], sleep: Callable[[Machine], None]
    ) -> None:
        sleep(machine)
        (started,) = [event for event in events if isinstance(event, CommandStarted)]
        assert started.command == "sleep 0.2"

    def test_it_needs_a_length(self, machine: Machine) -> None:
        with pytest.raises(MachineUsageError, match="duration"):
            machine.sleep()


class TestEventsOfCommands:
    def test_a_command_is_told_with_its_outputs_and_its_end(
        self, machine: Machine, events: list[Event]
    ) -> None:
        machine.execute("echo out; echo err >&2; exit 3", timeout=60)
        told = [event for event in events if getattr(event, "machine", "") == "alpha"]
        started, *outputs, finished = told
        assert isinstance(started, CommandStarted)
        assert (started.command, started.timeout) == ("echo out; echo err >&2; exit 3", 60)
        texts = {e.stream: e.text for e in outputs if isinstance(e, CommandOutput)}
        assert texts == {Stream.STDOUT: "out\n", Stream.STDERR: "err\n"}
        assert isinstance(finished, CommandFinished)
        assert (finished.id, finished.status) == (started.id, 3)

    def test_output_is_told_while_the_command_runs(
        self, machine: Machine, events: list[Event], scratch: str
    ) -> None:
        def told() -> bool:
            return any(isinstance(e, CommandOutput) and e.text == "early\n" for e in events)

        def go() -> None:
            eventually(told, "the output of a command that runs")
            machine.succeed(f"touch {scratch}/go")

        with ThreadPoolExecutor(1) as pool:
            going = pool.submit(go)
            waiting = f"until test -e {scratch}/go; do sleep 0.05; done"
            machine.succeed(f"echo early; {waiting}", timeout=60)
            going.result()

    def test_a_timeout_is_told(self, machine: Machine, events: list[Event]) -> None:
        machine.execute("sleep 1000", timeout=0.2)
        (finished,) = [event for event in events if isinstance(event, CommandFinished)]
        assert (finished.status, finished.error) == (124, "timed out")
