"""`nxc-test shell compositions/hello` on the engine of this host."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_lab import PROMPT, Prompt
from run_lab import LONG, RunLab, output_of, run_lab, until

from nxc_testing.backends.docker import DockerBackend

HELLO = Path(__file__).parents[2] / "compositions/hello"


@pytest.fixture
def lab(tmp_path: Path, runtime: Path) -> Iterator[RunLab]:
    """A copy of `hello`."""
    if why := DockerBackend().unavailable():
        pytest.skip(why)
    shutil.copytree(HELLO, tmp_path / "hello")
    with run_lab(tmp_path, runtime, "docker") as lab:
        yield lab
        for run in lab.runs:
            run.hang_up()
            if lab.left():
                lab.try_nxc_test("reap", *run.ids)


@pytest.fixture
def prompt(plain: Callable[..., Prompt]) -> Prompt:
    """The prompt, ready; the image may have to be built."""
    prompt = plain("hello")
    prompt.expect(PROMPT, 900)
    return prompt


def test_the_tutorial_runs_at_the_prompt_and_leaves_nothing(lab: RunLab, prompt: Prompt) -> None:
    said = prompt.run("test_script()", 120)
    assert "subtest: there is no other page" in said
    assert "Traceback" not in said
    assert "'client\\n'" in prompt.run("client.succeed('hostname')")
    prompt.end_of_input()
    assert prompt.ends() == 0
    assert lab.left() == []


def test_ctrl_c_ends_what_runs_in_the_machine(lab: RunLab, prompt: Prompt) -> None:
    prompt.run("server.wait_for_unit('multi-user.target')", 120)
    prompt.type(f"server.succeed('setsid sleep {LONG}')\n")
    (run,) = prompt.ids

    def sleeps() -> bool:
        return LONG in output_of("docker", "top", f"{run}-server", "-eo", "pid,args")

    until(sleeps, 10, "the command runs")
    prompt.interrupt()
    prompt.expect(PROMPT)
    until(lambda: not sleeps(), 10, "the command ends")
    assert "'ok\\n'" in prompt.run("server.succeed('echo ok')")


def test_a_kill_at_the_prompt_leaves_nothing(lab: RunLab, prompt: Prompt) -> None:
    assert "ps -a" in " ".join(lab.left())
    prompt.kill()
    lab.all_is_gone()


def test_ctrl_c_while_machines_are_made_leaves_nothing(
    lab: RunLab, plain: Callable[..., Prompt]
) -> None:
    prompt = plain("hello")
    until(lambda: "ps -a" in " ".join(lab.left()), 900, "there is a container")
    prompt.interrupt()
    assert prompt.ends() == 130
    lab.all_is_gone()
