"""`nxc-test shell` with ptpython, which is used where it is installed."""

from __future__ import annotations

import os
import signal

import pytest
from prompt_lab import PROMPT, Prompt, start
from run_lab import LONG, RunLab, until

READY, TAKEN = "\x1b[2 q", "\x1b[0 q"
"""The shapes that the cursor is given for typing, and after it."""


@pytest.fixture
def prompt(lab: RunLab) -> Prompt:
    """The prompt, ready."""
    reason = "ptpython is not installed: `pip install .[dev]`"
    try:
        import ptpython.repl  # noqa: F401
    except ImportError:
        if os.environ.get("NXC_CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    prompt = start(lab, "c", TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1")
    prompt.expect(READY)
    return prompt


def shown(prompt: Prompt, line: str) -> str:
    """What a line shows."""
    prompt.type(f"{line}\r")
    prompt.expect(TAKEN)
    return prompt.expect(READY)


def test_it_is_ptpython(prompt: Prompt) -> None:
    assert "ptpython.repl" in shown(prompt, "type(get_ptpython()).__mro__[1].__module__")


def test_a_terminal_that_cannot_show_it_has_pythons_own(lab: RunLab) -> None:
    prompt = start(lab, "c", TERM="dumb")
    prompt.expect(PROMPT)
    assert "False" in prompt.run("'get_ptpython' in globals()")


def test_machines_answer_by_their_names(prompt: Prompt) -> None:
    assert "'7\\n'" in shown(prompt, "server.succeed('expr 3 + 4')")


def test_an_error_is_told_without_the_library(lab: RunLab, prompt: Prompt) -> None:
    script = lab.root / "c/test_script.py"
    script.write_text("start_all()\nserver.succeed('false')\n")
    said = shown(prompt, "test_script()")
    assert f"  File \"{script}\", line 2, in <module>\n    server.succeed('false')\n" in said
    assert "\nnxc_testing.errors.CommandFailed: server: command `false` failed" in said
    # Those of the prompt and of the testScript.
    assert said.count("  File ") == 2


def test_ctrl_c_ends_a_command_and_what_it_started(lab: RunLab, prompt: Prompt) -> None:
    prompt.type(f"server.succeed('sleep {LONG}')\r")
    until(lambda: any(LONG in thing for thing in lab.left()), 10, "the command runs")
    prompt.interrupt()
    prompt.expect("\rKeyboardInterrupt\r\n")
    prompt.expect(READY)
    until(lambda: not any(LONG in thing for thing in lab.left()), 10, "the command ends")
    assert "'ok\\n'" in shown(prompt, "server.succeed('echo ok')")


def test_ctrl_d_leaves_and_releases_everything(lab: RunLab, prompt: Prompt) -> None:
    shown(prompt, f"server.succeed('setsid sleep {LONG} >&- 2>&- &')")
    prompt.end_of_input()
    assert prompt.ends() == 0
    lab.all_is_gone()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda one: one.name
)
def test_a_kill_at_the_prompt_releases_everything(
    lab: RunLab, prompt: Prompt, number: signal.Signals
) -> None:
    shown(prompt, f"server.succeed('setsid sleep {LONG} >&- 2>&- &')")
    prompt.process.send_signal(number)
    assert prompt.ends() == -number
    lab.all_is_gone()
