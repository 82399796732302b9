"""Errors: one tree, and messages that help."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from nxc_testing import errors
from nxc_testing.errors import (
    CommandFailed,
    CommandSucceeded,
    ConfigError,
    DeploymentError,
    InfraError,
    MachineDied,
    MachineError,
    MachineUsageError,
    NxcError,
    RequestedAssertionFailed,
    StartFailed,
    Unsupported,
    WaitTimeout,
    tail,
)

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, NxcError)
}


def drawn_tree() -> dict[str, str]:
    """The parent of every error, as the module's docstring draws it."""
    parents, above = {}, [""]
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if found:
            depth = len(found[1]) // 4
            parents[found[2]] = above[depth]
            above[depth + 1 :] = [found[2]]
    return parents


def test_the_tree_that_is_drawn_is_the_tree_that_is() -> None:
    drawn = drawn_tree()
    assert drawn.pop("NxcError") == ""
    assert drawn == {
        name: error.__bases__[0].__name__ for name, error in CLASSES.items() if name != "NxcError"
    }


def test_a_failed_assertion_is_an_assertion_error() -> None:
    assert issubclass(RequestedAssertionFailed, AssertionError)


def test_a_broken_test_bed_is_no_failure_of_the_product() -> None:
    assert not issubclass(InfraError, RequestedAssertionFailed)
    assert not issubclass(RequestedAssertionFailed, InfraError)


def test_a_config_error_names_file_key_problem_and_hint() -> None:
    error = ConfigError("is 0", file=Path("a.toml"), key="roles.x.count", hint="at least 1")
    assert str(error) == "a.toml: roles.x.count: is 0\n  at least 1"


def test_a_failed_command_shows_the_ends_of_both_outputs() -> None:
    error = CommandFailed("n", "make", 2, "one\ntwo\n", "three\n")
    assert str(error) == (
        "n: command `make` failed (exit code 2)\n  stdout:\n    one\n    two\n  stderr:\n    three"
    )


def test_a_failed_command_without_output_is_one_line() -> None:
    assert str(CommandFailed("n", "false", 1, "", "\n")) == (
        "n: command `false` failed (exit code 1)"
    )


def test_a_command_that_ran_into_its_timeout_says_after_how_long() -> None:
    error = CommandFailed("n", "sleep 9", 124, "", "", timeout=1.5)
    assert error.timed_out
    assert str(error) == ("n: command `sleep 9` was ended at its timeout of 1.5 s (exit code 124)")


def test_a_command_that_exits_with_124_did_not_time_out() -> None:
    error = CommandFailed("n", "timeout 1 sleep 9", 124, "", "")
    assert not error.timed_out
    assert "failed (exit code 124)" in str(error)


def test_a_very_long_command_is_shortened_in_the_message_only() -> None:
    command = "echo " + "x" * 100_000
    error = CommandFailed("n", command, 1, "", "")
    assert len(str(error)) < 1200
    assert "... (100005 characters)`" in str(error)
    assert error.command == command


def test_a_command_that_should_have_failed_shows_both_outputs() -> None:
    error = CommandSucceeded("n", "true", "out\n", "err\n")
    assert str(error) == (
        "n: command `true` unexpectedly succeeded\n  stdout:\n    out\n  stderr:\n    err"
    )


def test_a_wait_says_for_what_how_long_and_what_was_seen() -> None:
    error = WaitTimeout("n", "file /x", 2.04, "  no such directory")
    assert str(error) == "n: timed out after 2.0 s waiting for file /x\n  no such directory"


def test_what_is_unsupported_is_said_with_machine_method_backend_and_reason() -> None:
    error = Unsupported("n", "screenshot", "docker", "it has no screen")
    assert str(error) == "n: screenshot is not supported on backend docker: it has no screen"


def test_a_death_says_how_during_what_and_its_last_words() -> None:
    error = MachineDied("n", "it powered off", doing="command `x`", console="a\nb\n")
    assert str(error) == ("n died (it powered off) during command `x`\n  console:\n    a\n    b")


def test_machines_that_did_not_start_are_all_named() -> None:
    error = StartFailed({"a": DeploymentError("no room"), "b": DeploymentError("no bed")})
    assert str(error).splitlines()[1:] == ["a: no room", "b: no bed"]
    assert set(error.reasons) == {"a", "b"}


@pytest.mark.parametrize("kind", [MachineError, DeploymentError, InfraError])
def test_machines_that_did_not_start_are_upstreams_error_and_the_test_beds(
    kind: type[Exception],
) -> None:
    assert issubclass(StartFailed, kind)


def test_a_usage_error_is_a_value_error() -> None:
    assert issubclass(MachineUsageError, ValueError)


class TestTail:
    def test_short_text_is_whole(self) -> None:
        assert tail("stdout", "a\nb\n") == "\n  stdout:\n    a\n    b"

    @pytest.mark.parametrize("text", ["", "\n", " \n "])
    def test_nothing_gives_nothing(self, text: str) -> None:
        assert tail("stdout", text) == ""

    def test_of_many_lines_the_last_are_shown(self) -> None:
        shown = tail("log", "\n".join(map(str, range(100))), lines=2)
        assert shown == "\n  log (its end):\n    98\n    99"

    def test_of_a_very_long_line_the_end_is_shown(self) -> None:
        shown = tail("log", "x" * 100_000 + "end")
        assert shown.startswith("\n  log (its end):\n")
        assert shown.endswith("xend")
        assert len(shown) < 5000

    def test_all_lines_are_no_end(self) -> None:
        assert "its end" not in tail("log", "\n".join("ab"), lines=2)
