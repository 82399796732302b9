"""At its deadline a command ends with all that it started, and nothing else does."""

from __future__ import annotations

import secrets
import signal
import threading
import time

import pytest
from shell_lab import LENGTHS, PATIENCE, Place, run, wait_until

from nxc_testing.composition.model import ShellMode
from nxc_testing.shell import Result, Shell, prepare
from nxc_testing.shell import shell as shell_module

# Long enough that a busy host has started the command.
SOON = 0.5


def ended(shell: Shell, command: str, timeout: float = SOON) -> Result:
    result = run(shell, command, timeout)
    assert result.timed_out
    assert result.status == 124
    return result


TREES = {
    "child": "sleep {0}",
    "replaced": "exec sleep {0}",
    "grandchild": "bash -c 'sleep {0}; true'; true",
    "background": "sleep {0} & wait",
    "background-that-keeps-stdout": "sleep {0} & echo went",
    "pipeline": "sleep {0} | cat | cat",
    "other-user": "su nobody -s /bin/bash -c 'sleep {0}'",
    "login-of-another-user": "su - nobody -s /bin/bash -c 'sleep {0}'",
    "own-session": "setsid -w sleep {0}",
    "own-session-left-behind": "setsid sleep {0} </dev/null >/dev/null 2>&1 & sleep 100",
    "daemon": "(setsid bash -c 'sleep {0} & exit' </dev/null >/dev/null 2>&1 &); sleep 100",
    "daemon-of-a-daemon": "setsid setsid -f bash -c 'exec >&- 2>&- <&-; (sleep {0} &)'; sleep 100",
    "job-control": "set -m; sleep {0} & wait",
    "ignores-term": "trap '' TERM; sleep {0}; sleep {0}",
    "ignores-term-in-a-loop": "trap '' TERM; while :; do sleep {0}; done",
    "stopped": "sleep {0} & kill -STOP $!; wait",
    "stopped-itself": "sleep {0} >/dev/null 2>&1 & kill -STOP $$",
    "closed-outputs": "exec >&- 2>&-; sleep {0}",
    "closed-everything": "exec <&- >&- 2>&-; sleep {0}",
    "under-timeout": "timeout 1000 sleep {0}",
    "of-a-thread": 'perl -e \'use strict; system("sleep", "{0}")\'',
    "substitution": "x=$(sleep {0})",
    "process-substitution": "cat <(sleep {0})",
}


@pytest.mark.parametrize("command", TREES.values(), ids=TREES)
def test_the_whole_tree_ends(place: Place, shell: Shell, command: str) -> None:
    length = next(LENGTHS)
    ended(shell, command.format(length))
    assert place.waits_until_gone(f"sleep {length}")
    assert run(shell, "echo still usable").stdout == b"still usable\n"


def test_a_process_that_forks_as_fast_as_it_is_killed_ends(place: Place, shell: Shell) -> None:
    length = next(LENGTHS)
    ended(shell, f"f() {{ sleep {length} & sleep 0.01; (f) & }}; trap '' TERM; f; f; sleep 100")
    assert place.waits_until_gone(f"sleep {length}")


def test_output_so_far_is_kept(shell: Shell) -> None:
    result = ended(shell, "echo out; echo err >&2; printf half; sleep 1000")
    assert (result.stdout, result.stderr) == (b"out\nhalf", b"err\n")


def test_what_a_command_says_when_it_is_told_to_end_is_kept(shell: Shell) -> None:
    result = ended(shell, "trap 'echo ending; exit' TERM; sleep 1000 & wait")
    assert result.stdout == b"ending\n"


def test_a_flood_is_ended(shell: Shell) -> None:
    result = ended(shell, "yes")
    assert result.stdout.startswith(b"y\ny\n")
    assert run(shell, "echo still usable").stdout == b"still usable\n"


def test_a_flood_in_the_background_is_ended(place: Place, shell: Shell) -> None:
    word = secrets.token_hex(8)
    ended(shell, f"yes {word} & yes {word} >&2 & exit 0")
    assert place.waits_until_gone(f"yes {word}")
    assert run(shell, "echo still usable").stdout == b"still usable\n"


def test_a_status_of_124_is_no_timeout(shell: Shell) -> None:
    result = run(shell, "exit 124")
    assert (result.status, result.timed_out) == (124, False)


def test_a_deadline_that_has_passed_lets_nothing_begin(shell: Shell) -> None:
    path = f"/tmp/nxc-begun.{secrets.token_hex(8)}"
    ended(shell, f"sleep 0.2; touch {path}", 0)
    assert run(shell, f"sleep 0.5; test -e {path}").status == 1


def test_daemons_of_earlier_commands_live_on(place: Place, shell: Shell) -> None:
    length = next(LENGTHS)
    run(shell, f"setsid sleep {length} </dev/null >/dev/null 2>&1 &")
    ended(shell, "sleep 1000")
    assert len(place.running(f"sleep {length}")) == 1
    place.kill(*place.running(f"sleep {length}"))


def test_what_daemons_of_earlier_commands_start_lives_on(place: Place, own_shell: Shell) -> None:
    length = next(LENGTHS)
    orphan = f"(sleep {length} &)"
    run(own_shell, f"(sleep {SOON / 2}; {orphan}; {orphan}) </dev/null >/dev/null 2>&1 &")
    ended(own_shell, "sleep 1000")
    assert len(place.running(f"sleep {length}")) == 2
    place.kill(*place.running(f"sleep {length}"))


def test_other_commands_go_on(place: Place, own_shell: Shell) -> None:
    results: list[Result] = []
    other = threading.Thread(
        target=lambda: results.append(run(own_shell, f"sleep {2 * SOON}; echo other"))
    )
    # Its process ends at once, and so its zygote would be free for the other command.
    first = threading.Thread(target=lambda: run(own_shell, "sleep 1000 & true", SOON))
    first.start()
    time.sleep(SOON / 4)
    other.start()
    first.join()
    other.join()
    assert [(result.status, result.stdout) for result in results] == [(0, b"other\n")]


def test_who_else_holds_the_output_is_ended(place: Place, shell: Shell) -> None:
    """A process that is nobody's descendant, but was given the command's stdout."""
    length = next(LENGTHS)
    fifo = f"/tmp/nxc-fifo.{secrets.token_hex(8)}"
    opener = f"mkfifo {fifo}; bash -c 'read -r pid <{fifo}; exec sleep {length} >/proc/$pid/fd/1'"
    run(shell, f"({opener}) </dev/null >/dev/null 2>&1 &")
    wait_until(lambda: run(shell, f"test -p {fifo}").status == 0)
    ended(shell, f"echo $$ >{fifo}; until pgrep -fx 'sleep {length}'; do sleep 0.05; done; exit 0")
    assert place.waits_until_gone(f"sleep {length}")
    run(shell, f"rm {fifo}")


@pytest.mark.parametrize("environment", ["strict", "login"])
def test_a_machine_without_lists_of_children(
    place: Place, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    """A kernel without CONFIG_PROC_CHILDREN."""
    source = shell_module.agent_source()
    assert source.count(b"/children") == 2
    without = source.replace(b"/children", b"/no-children")
    monkeypatch.setattr(shell_module, "agent_source", lambda: without)
    shell = place.shell()
    mode = ShellMode.STRICT if environment == "strict" else ShellMode.NXC
    length, survivor = next(LENGTHS), next(LENGTHS)
    run(shell, f"setsid sleep {survivor} </dev/null >/dev/null 2>&1 &", mode=mode)
    result = shell.run(prepare(TREES["daemon"].format(length), mode), SOON)
    assert result.timed_out
    assert place.waits_until_gone(f"sleep {length}")
    assert place.running(f"sleep {survivor}")
    place.kill(*place.running(f"sleep {survivor}"))
    shell.close()


def test_the_first_command_of_a_shell_ends_whole_on_a_busy_machine(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent comes late to look at what was there before the command."""
    source, look = shell_module.agent_source(), b"$zygote->{before} = {"
    assert source.count(look) == 1
    busy = source.replace(look, b"select undef, undef, undef, 0.3; " + look)
    monkeypatch.setattr(shell_module, "agent_source", lambda: busy)
    shell, length = place.shell(), next(LENGTHS)
    ended(shell, TREES["daemon"].format(length))
    assert place.waits_until_gone(f"sleep {length}")
    shell.close()


def test_an_interrupted_wait_ends_the_command(place: Place, shell: Shell) -> None:
    """Ctrl-C, or a test's own timeout, while a command runs."""
    length = next(LENGTHS)
    waiter = threading.get_ident()

    def interrupt() -> None:
        assert place.waits_until_running(f"sleep {length}")
        signal.pthread_kill(waiter, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        run(shell, f"sleep {length}", PATIENCE)
    interrupter.join()
    assert place.waits_until_gone(f"sleep {length}")
