"""Profiles that do what profiles should not: they harm no command, or it is told."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Iterator

import pytest
from shell_lab import LENGTHS, Place, run

from nxc_testing.composition.model import ShellMode
from nxc_testing.errors import ShellLost
from nxc_testing.shell import Shell
from nxc_testing.shell import shell as shell_module

Profiled = Callable[[str], Shell]


@pytest.fixture
def profiled(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Profiled]:
    """Shells of a root whose profile is the given text."""
    shells: list[Shell] = []
    home = f"/tmp/nxc-home.{os.getpid()}.{next(LENGTHS)}"
    source = shell_module.agent_source()
    assert source.count(b". /etc/profile;") == 1
    elsewhere = source.replace(b". /etc/profile;", f". {home}/.bash_profile;".encode())

    def make(profile: str) -> Shell:
        written = f"mkdir -p {home}; printf %s {shlex.quote(profile)} >{home}/.bash_profile"
        assert place.execute(["bash", "-c", written])[0] == 0
        monkeypatch.setattr(shell_module, "agent_source", lambda: elsewhere)
        channel = place.open_channel()
        os.write(channel.writer, f"export HOME={home}\n".encode())
        shells.append(Shell("one", channel))
        return shells[-1]

    yield make
    for shell in shells:
        shell.close()
    place.execute(["rm", "-rf", home])


MODES = pytest.mark.parametrize("mode", ShellMode, ids=lambda mode: mode.value)
HARMLESS = {
    "prints": "echo hello; echo hello >&2",
    "reads": "read -r x; cat",
    "exit-on-error": "set -e",
    "unset-is-an-error": "set -u",
    "traces": "set -x",
    "other-separators": "IFS=0123456789",
    "traps": "trap 'echo bye; exit 9' EXIT; trap 'exit 8' ERR; trap 'echo debug' DEBUG",
    "ignores-signals": "trap '' INT",
    "functions-of-our-words": "cd() { echo cd; }; read() { :; }; printf() { :; }; wait() { :; }",
    "variables-of-our-names": "_i=1; _c=2; _p=3; _r=4",
    "no-clobber": "set -o noclobber",
    "posix": "set -o posix",
    "other-directory": "cd /",
    "returns": "return 5",
    "fails": "false",
    "time-out-for-reads": "export TMOUT=1",
    "exports-everything": "set -a",
}


@MODES
@pytest.mark.parametrize("profile", HARMLESS.values(), ids=HARMLESS)
def test_a_profile_that_does_no_harm(profiled: Profiled, profile: str, mode: ShellMode) -> None:
    shell = profiled(profile + "\n")
    for number in range(3):
        result = run(shell, f"echo {number}; exit {number}", mode=mode)
        assert (result.status, result.stdout) == (number, b"%d\n" % number)
    assert run(shell, "false || echo went on", mode=mode).stdout == b"went on\n"


def test_what_a_profile_exports_is_there(profiled: Profiled) -> None:
    shell = profiled("export PATH=/of/the/profile:$PATH PAGER=less OTHER=1; own=2; f() { :; }\n")
    seen = run(shell, "echo ${PATH%%:*} [$PAGER] $OTHER [${own-}]; declare -F")
    assert seen.stdout == b"/of/the/profile [] 1 []\n"


@MODES
def test_any_bytes_go_in_whatever_locale_the_profile_sets(
    profiled: Profiled, mode: ShellMode
) -> None:
    shell = profiled("export LC_ALL=C.UTF-8\n")
    said = "\N{EURO SIGN} \udcff \N{GRINNING FACE}"
    for _ in range(2):
        result = run(shell, f"printf %s '{said}'", 10, mode=mode)
        assert result.stdout == said.encode(errors="surrogateescape")


def test_a_login_shell_keeps_all_that_its_profile_made(profiled: Profiled) -> None:
    shell = profiled("own=2; f() { echo called; }; shopt -s nullglob\n")
    commands = ["echo $own; f; echo /none*", "trap true EXIT; echo $own; f; echo /none*"]
    for command in commands:
        seen = run(shell, command, mode=ShellMode.NXC).stdout
        assert seen == b"2\ncalled\n\n"


@MODES
def test_a_profile_that_exits_is_told(profiled: Profiled, mode: ShellMode) -> None:
    shell = profiled("exit 0\n")
    expected = "no shell for the command: its shell ended while it was set up, by exit status 0"
    for _ in range(2):
        with pytest.raises(ShellLost, match=re.escape(expected)):
            run(shell, "echo ran", mode=mode)
    assert not shell.closed


@MODES
def test_a_profile_that_hangs_ends_at_the_deadline(
    place: Place, profiled: Profiled, mode: ShellMode
) -> None:
    length = next(LENGTHS)
    shell = profiled(f"trap '' TERM\nsleep {length}\n")
    result = run(shell, "echo ran", 1, mode=mode)
    assert (result.status, result.timed_out, result.stdout) == (124, True, b"")
    assert result.stderr == b"the shell's profile had not come to its end\n"
    assert place.waits_until_gone(f"sleep {length}")


@MODES
def test_a_command_does_not_begin_after_its_deadline(profiled: Profiled, mode: ShellMode) -> None:
    """The deadline ends what the profile waits for, and so the profile goes on."""
    begun = f"/tmp/nxc-begun.{next(LENGTHS)}"
    shell = profiled("sleep 1000\n")
    assert run(shell, f"touch {begun}", 1, mode=mode).timed_out
    time.sleep(0.5)
    other = profiled("")
    assert run(other, f"test -e {begun}", mode=mode).status == 1


@MODES
def test_a_profile_that_leaves_a_daemon(place: Place, profiled: Profiled, mode: ShellMode) -> None:
    length = next(LENGTHS)
    shell = profiled(f"sleep {length} &\n")
    assert [run(shell, "echo ran", mode=mode).stdout for _ in range(3)] == [b"ran\n"] * 3
    # One daemon for one shell that is used again and again.
    assert len(place.running(f"sleep {length}")) == 1
    assert run(shell, "kill -9 $PPID", mode=mode).status == 137
    assert run(shell, "echo ran", mode=mode).stdout == b"ran\n"
    place.kill(*place.running(f"sleep {length}"))


@MODES
def test_an_idle_shell_that_gives_up_is_replaced(profiled: Profiled, mode: ShellMode) -> None:
    """TMOUT ends a `read`, also that of a waiting shell."""
    shell = profiled("export TMOUT=1\n")
    for _ in range(3):
        assert run(shell, "echo $TMOUT", mode=mode).stdout == b"1\n"
        time.sleep(1.1)
