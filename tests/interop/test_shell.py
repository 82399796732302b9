"""`nxc-test shell` with Python's own prompt, on a terminal and with lines that are piped in."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import pytest
from prompt_lab import PROMPT, Prompt
from run_lab import BIN, LONG, RunLab, until

StartPrompt = Callable[..., Prompt]


@pytest.fixture
def prompt(plain: StartPrompt) -> Prompt:
    """The prompt, ready."""
    prompt = plain("c")
    prompt.expect(PROMPT)
    return prompt


def shown(prompt: Prompt, line: str) -> str:
    """What a line shows, without the line itself."""
    return prompt.run(line).partition("\n")[2]


def is_running(lab: RunLab) -> bool:
    """Whether a long sleep runs somewhere."""
    return any(LONG in thing for thing in lab.left())


def test_it_begins_with_the_machines_started(plain: StartPrompt) -> None:
    said = plain("c").expect(PROMPT)
    for machine in ("server", "node1", "node2"):
        assert f"{machine}: started (boot 1)" in said
    assert "c on fake, run nxc-" in said


def test_machines_are_not_started_where_that_is_asked(plain: StartPrompt) -> None:
    assert "started" not in plain("c", "--no-start").expect(PROMPT)


def test_it_knows_all_globals_of_a_testscript(prompt: Prompt) -> None:
    assert shown(prompt, "set(driver.symbols()) - set(globals())") == "set()\n"


def test_machines_answer_by_their_names(prompt: Prompt) -> None:
    assert "'7\\n'\n" in shown(prompt, "server.succeed('expr 3 + 4')")


def test_commands_are_shown_with_their_outputs(prompt: Prompt) -> None:
    said = shown(prompt, "node1.execute('echo out; echo err >&2; exit 3')")
    for line in ("node1: $ echo out", "node1: out\n", "node1: err\n", "node1: exit code 3 after"):
        assert line in said


def test_the_testscript_is_read_anew_each_time(lab: RunLab, prompt: Prompt) -> None:
    script = lab.root / "c/test_script.py"
    script.write_text("server.succeed('echo first')\n")
    first = shown(prompt, "test_script()")
    script.write_text("server.succeed('echo second')\n")
    second = shown(prompt, "test_script()")
    assert ("server: first" in first, "server: first" in second) == (True, False)
    assert "server: second" in second


def test_subtests_of_the_testscript_are_named(lab: RunLab, prompt: Prompt) -> None:
    (lab.root / "c/test_script.py").write_text(
        "with subtest('boot'):\n    server.succeed('true')\n"
    )
    assert "subtest: boot\n" in shown(prompt, "test_script()")


def test_a_failed_command_is_told_without_the_library(prompt: Prompt) -> None:
    said = shown(prompt, "server.succeed('echo broken >&2; exit 3')")
    assert said.endswith(
        "Traceback (most recent call last):\n"
        '  File "<console>", line 1, in <module>\n'
        "nxc_testing.errors.CommandFailed: server: command `echo broken >&2; exit 3` failed"
        " (exit code 3)\n"
        "  stderr:\n"
        "    broken\n"
    )


@pytest.mark.parametrize(
    "mistake",
    ["server.succeed('false')", "t.assertEqual(1, 2)", "assert 1 == 2", "1 / 0"],
)
def test_an_error_in_the_testscript_is_told_at_its_line(
    lab: RunLab, prompt: Prompt, mistake: str
) -> None:
    script = lab.root / "c/test_script.py"
    script.write_text(f"start_all()\n{mistake}\n")
    said = shown(prompt, "test_script()")
    assert f'  File "{script}", line 2, in <module>\n    {mistake}\n' in said
    # Those of the prompt and of the testScript.
    assert said.count("  File ") == 2


def test_a_mistake_in_the_library_is_told_with_its_frames(prompt: Prompt) -> None:
    assert "nxc_testing/machine.py" in shown(prompt, "server.succeed(5)")


def test_a_failed_start_is_told_once(prompt: Prompt) -> None:
    """Its message has the reasons: what raised it in the library is left out."""
    said = shown(prompt, "driver.close(); start_all()")
    assert "StartFailed: Failed to start the following machines" in said
    assert "direct cause" not in said


def test_it_goes_on_after_an_error(prompt: Prompt) -> None:
    prompt.run("server.succeed('false')")
    assert shown(prompt, "6 * 7") == "42\n"


def test_ctrl_c_ends_a_command_and_what_it_started(lab: RunLab, prompt: Prompt) -> None:
    prompt.type(f"server.succeed('sleep {LONG}')\n")
    until(lambda: is_running(lab), 10, "the command runs")
    prompt.interrupt()
    said = prompt.expect(PROMPT)
    assert said.endswith('\n  File "<console>", line 1, in <module>\nKeyboardInterrupt\n')
    until(lambda: not is_running(lab), 10, "the command ends")
    assert "'ok\\n'" in shown(prompt, "server.succeed('echo ok')")


def test_a_tab_completes_names(prompt: Prompt) -> None:
    pytest.importorskip("readline", reason="this Python was built without readline")
    prompt.type("server.wait_until_succ\t")
    prompt.expect("server.wait_until_succeeds(", 10)


def test_earlier_lines_come_back_in_the_next_prompt(plain: StartPrompt) -> None:
    pytest.importorskip("readline", reason="this Python was built without readline")
    first = plain("c")
    first.expect(PROMPT)
    first.run("'seldom' + 'typed'")
    first.end_of_input()
    first.ends()
    second = plain("c")
    second.expect(PROMPT)
    second.type("\x10\n")  # Ctrl-P
    assert "'seldomtyped'" in second.expect(PROMPT)


def test_leaving_ends_the_machines_in_sight(prompt: Prompt) -> None:
    prompt.end_of_input()
    prompt.ends()
    for machine in ("server", "node1", "node2"):
        assert f"{machine}: ended: " in prompt.text


LEAVE = {
    "Ctrl-D": Prompt.end_of_input,
    "exit": lambda prompt: prompt.type("exit()\n"),
    "SIGTERM": lambda prompt: prompt.process.send_signal(signal.SIGTERM),
    "SIGHUP": lambda prompt: prompt.process.send_signal(signal.SIGHUP),
    "SIGKILL": lambda prompt: prompt.process.kill(),
    "closed terminal": Prompt.hang_up,
}


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("Ctrl-D", 0),
        ("exit", 0),
        ("SIGTERM", -signal.SIGTERM),
        ("SIGHUP", -signal.SIGHUP),
        ("SIGKILL", -signal.SIGKILL),
        ("closed terminal", -signal.SIGHUP),
    ],
)
def test_leaving_releases_everything(lab: RunLab, prompt: Prompt, how: str, status: int) -> None:
    prompt.run(f"server.succeed('setsid sleep {LONG} >&- 2>&- &')")
    until(lambda: is_running(lab), 10, "something runs in the background")
    LEAVE[how](prompt)
    assert prompt.ends() == status
    lab.all_is_gone()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "SIGKILL", "closed terminal"])
def test_an_end_in_the_middle_of_a_command_releases_everything(
    lab: RunLab, prompt: Prompt, how: str
) -> None:
    prompt.type(f"server.succeed('sleep {LONG}')\n")
    until(lambda: is_running(lab), 10, "the command runs")
    LEAVE[how](prompt)
    assert prompt.ends() != 0
    lab.all_is_gone()


def test_ps_shows_it_while_it_is_there(lab: RunLab, prompt: Prompt) -> None:
    (run,) = prompt.ids
    assert f"{run}  running" in lab.nxc_test("ps")
    prompt.end_of_input()
    prompt.ends()
    assert run not in lab.nxc_test("ps")


def test_piped_lines_are_run(lab: RunLab) -> None:
    done = subprocess.run(
        [BIN / "nxc-test", "shell", "c", "--backend", "fake"],
        input="server.succeed('false')\nprint('after', node2.succeed('echo it'))\n",
        cwd=lab.root,
        env=lab.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "after it\n" in done.stdout
    assert "CommandFailed: server: command `false` failed (exit code 1)\n" in done.stderr
    lab.all_is_gone()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ("nowhere", 2, "nowhere: cannot be read: No such file or directory"),
        (".", 2, "composition.toml: cannot be read: No such file or directory"),
        ("bad", 2, "bad/composition.toml: line 1, column 1: Invalid statement"),
        ("c --backend none", 2, "there is no backend 'none'"),
        ("c --role none=3", 2, '--role none=3: there is no role "none"'),
        ("c --role 3", 2, "write --role node=4"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(
    lab: RunLab, arguments: str, status: int, said: str
) -> None:
    (lab.root / "bad").mkdir()
    (lab.root / "bad/composition.toml").write_text("= 3\n")
    done = subprocess.run(
        [BIN / "nxc-test", "shell", "--backend=fake", *arguments.split()],
        cwd=lab.root,
        env=lab.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert said in done.stderr
    # The second line, if there is one, is the hint.
    assert done.stderr.startswith("nxc-test: ")
    assert done.stderr.count("\n") <= 2
    lab.all_is_gone()


def test_the_environment_sets_what_options_do_not(lab: RunLab) -> None:
    given = {"NXC_BACKEND": "fake", "NXC_ROLE": "node=1"}
    done = subprocess.run(
        [BIN / "nxc-test", "shell", "c"],
        input="[m.name for m in machines]\n",
        cwd=lab.root,
        env=lab.environment | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "['node', 'server']" in done.stdout
