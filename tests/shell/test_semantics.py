"""A command means what it means to a real bash: status and stdout are compared with one."""

from __future__ import annotations

import pytest
from shell_lab import Expected, Place, references, run

from nxc_testing.composition.model import ShellMode
from nxc_testing.shell import Shell

STATUSES = [
    "true",
    "false",
    ":",
    "",
    "  ",
    "# only a comment",
    "echo a # comment",
    "exit 3",
    "exit 300",
    "exit 124",
    "exit",
    "exit word",
    "false; true",
    "false | cat",
    "true | false",
    "! true",
    "! false; echo $?",
    "(exit 5); echo went on",
    "(exit 5) || echo $?",
    "nonexistent-command",
    "/nonexistent/command",
    "/tmp",
    "exec true",
    "exec false",
    "exec echo replaced",
    "exec nonexistent-command",
    "bash -c 'exit 7'",
    "sh -c 'kill -9 $$'",
    "kill -9 $$",
    "kill -TERM $$; echo went on",
    "kill -INT $$; echo went on",
    "(kill -9 $BASHPID); echo went on",
    "timeout 0.05 sleep 5",
    "echo $(( 1 / 0 )); echo went on",
    "let x=0; echo went on",
    "((0)); echo went on",
    "[[ a == b ]]; echo went on",
    "readonly x=1; x=2; echo went on",
    "eval 'echo inner; exit 3'; echo went on",
    "yes | head -n 1",
    "unset PATH; ls",
]
SYNTAX = [
    "echo a \\",
    "echo a\\",
    "echo 'a\\'",
    "\n\necho after blank lines\n",
    "echo one;\necho two\n\n# end",
    ";",
    "&&",
    "| cat",
    "(",
    ")",
    "}",
    "fi",
    "echo first\nfi\necho third",
    "echo first; fi",
    "echo 'unbalanced",
    'echo "unbalanced',
    "if true",
    "for x in",
    "case x in x) echo y;; esac",
    "echo `echo back`",
    "echo {1..5}",
    "cat <<E\nhere $((1 + 1))\nE",
    "cat <<'E'\nhere $x\nE",
    "cat <<-E\n\ttabs\n\tE\necho after",
    "cat <<E\nno end",
    "cat <<<word",
    "echo x; ) ; echo y",
    "echo \N{LATIN SMALL LETTER E WITH ACUTE}\N{EURO SIGN}",
    "echo '\udcff\udcfe' | od -An -tx1",
    "echo '\x01\x7f\x02' | od -An -tx1",
]
STRICTNESS = [
    "echo $undefined; echo went on",
    "echo ${undefined:-default}",
    "set +e; false; echo went on",
    "set +u; echo [$undefined]",
    "set +o pipefail; false | true; echo went on",
    "set -e; false; echo went on",
    "x=$(false); echo went on",
    "x=$(echo v; exit 3) || echo $x $?",
    "if false; then echo a; else echo b; fi",
    "f() { false; echo went on; }; f",
    "f() { false; echo went on; }; if f; then echo yes; fi",
    "f() { echo f; return 4; }; f; echo went on",
    "f() { local x=1; echo $x; }; f",
    "return 3",
    "local x=1",
    "break",
    "(false; echo went on) || echo failed",
    "set -o | sort",
    "shopt | sort",
    "echo $-",
    "false &\nwait $!; echo went on",
    "false && true; echo went on",
    "while false; do :; done; echo went on",
]
SHELL_STATE = [
    "echo $0 $# [$*]",
    'echo "$@"; set -- a b; echo $2',
    "pwd",
    "cd /; pwd",
    "echo ~ $HOME",
    "umask",
    "ulimit -a",
    "ulimit -n 100; ulimit -n",
    "env | grep -vE '^(_|SHLVL|OLDPWD)=' | sort",
    "grep -E '^Sig(Ign|Blk)' /proc/self/status",
    "declare -F; alias",
    "echo $SECONDS",
    "echo $OPTIND $OPTERR",
    'echo "[$IFS]" | od -An -c',
    "echo $BASH_VERSION",
    "echo $BASH_SUBSHELL",
    "echo $LINENO\necho $LINENO",
    "echo ${_i-} ${_m-} ${_s-} ${_o-} ${_e-} ${_n-} ${_c-} ${_p-} ${_r-}",
    "compgen -v | grep -x '_[a-z]*'",
    "test $$ = $BASHPID && echo same",
    "bash -c 'echo $PPID' | grep -qx $$ && echo same",
    "echo $!",
    "echo $_",
    "echo ${PIPESTATUS[@]}",
    "echo $HOSTNAME",
    "jobs",
    "caller",
    "hash -t ls",
    "type cd",
    "x=\N{LATIN SMALL LETTER E WITH ACUTE}a; echo ${#x}",
    "export LC_ALL=C.UTF-8; x=\N{EURO SIGN}; echo ${#x}; printf %s $x | wc -m",
    "LC_ALL=C; x=\N{EURO SIGN}; echo ${#x}",
    "locale",
    "nice",
    "id",
    "printf '%s\\n' \"$BASH_COMMAND\"",
]
DESCRIPTORS = [
    "cat",
    "read -r x; echo went on",
    "read -r x || echo no input",
    'echo "$(cat)"; echo went on',
    "[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo no terminal",
    "tty",
    "readlink /proc/self/fd/0",
    "ls /proc/self/fd",
    "test -p /dev/stdout && test -p /dev/stderr && echo pipes",
    "echo one >/dev/stdout; echo two >/dev/stdout",
    "echo one; echo two >/dev/stderr; echo three",
    "exec >&2; echo x",
    "exec >&-; echo x",
    "exec 2>&-; nonexistent-command",
    "exec <&- >&- 2>&-; exit 5",
    "exec 3>&1; echo x >&3",
    "echo x >&3",
    "echo x >&250",
    "exec 250>&1; echo x >&250",
    "exec 0</etc/passwd; head -n 1",
    "printf 'no newline'",
    "printf '\\0\\xff\\n\\xfe'",
    "head -c 300000 /dev/zero | tr '\\0' x",
    "while read -r line; do echo $line; done < <(seq 3)",
    "diff <(echo a) <(echo b)",
]
JOBS = [
    "sleep 0.01 & wait; echo done",
    "echo background & wait; echo done",
    "(sleep 0.02; echo late) & echo early",
    "((sleep 0.2; echo late) & sleep 0.1; echo middle) & echo early; wait",
    "sleep 0.01 & wait $!; echo $?",
    "coproc cat; echo hi >&${COPROC[1]}; read -r l <&${COPROC[0]}; echo $l",
    "trap 'echo bye' EXIT; exit 2",
    "trap 'echo failed' ERR; false",
    "trap 'echo caught' INT; kill -INT $$; echo after",
    "trap 'echo caught' USR1; sleep 0.05 & kill -USR1 $$; wait; echo after",
    "set -m; sleep 0.01 & wait; echo $?",
    ". /dev/stdin <<<'echo sourced; exit 4'",
    "source <(echo 'return 6'); echo went on",
    "select x in a b; do echo $x; break; done",
    ". <(echo 'echo $(($$ == BASHPID))')",
    "trap 'exit 9' TERM; kill -TERM $$; sleep 5",
    "kill 0; echo went on",
    "trap '' PIPE; yes 2>/dev/null | head -n 1; echo ${PIPESTATUS[@]}",
]
COMMANDS = [*STATUSES, *SYNTAX, *STRICTNESS, *SHELL_STATE, *DESCRIPTORS, *JOBS]
MODES = (ShellMode.STRICT, ShellMode.NXC)

# Where a command says nothing on its own status, a login shell has that of its profile's last
# command; here it is 0.
PROFILES_STATUS = {"", "  ", "# only a comment", "exit", "echo 'unbalanced", 'echo "unbalanced'}


def asked(command: str, mode: ShellMode) -> str:
    return f":\n{command}" if mode is ShellMode.NXC and command in PROFILES_STATUS else command


@pytest.fixture(scope="module")
def expected(place: Place) -> dict[ShellMode, dict[str, Expected]]:
    return {mode: references(place, [asked(c, mode) for c in COMMANDS], mode) for mode in MODES}


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: ascii(command)[1:-1][:40])
def test_as_a_real_bash(
    shell: Shell,
    expected: dict[ShellMode, dict[str, Expected]],
    command: str,
    mode: ShellMode,
) -> None:
    result = run(shell, asked(command, mode), mode=mode)
    assert Expected(result.status, result.stdout) == expected[mode][asked(command, mode)]


def test_nothing_persists(shell: Shell) -> None:
    state = "pwd; echo ${x-} ${y-}; umask; declare -F; ls /proc/self/fd | wc -l; ulimit -n"
    before = run(shell, state).stdout
    run(shell, "cd /; x=1; export y=2; set +e; umask 0; ulimit -n 50; exec 9>&1; f() { :; }")
    assert run(shell, state).stdout == before
    assert before.startswith(b"/tmp\n\n0022\n4\n")


def test_random_numbers_differ(shell: Shell) -> None:
    drawn = {run(shell, "echo $RANDOM$RANDOM$RANDOM").stdout for _ in range(5)}
    assert len(drawn) == 5


def test_a_command_is_in_no_argument_that_a_search_would_find(shell: Shell) -> None:
    assert run(shell, "pgrep -f a-word-that-is-nowhere-else").status == 1
    assert run(shell, "pgrep -f 'unset -v _'", mode=ShellMode.NXC).status == 1
