"""Every error this package raises, in one tree.

Catch at the level you care for::

    NxcError
    ├── ConfigError               what the user wrote is wrong: file, key, and what would be right
    │   └── TestScriptError       the testScript cannot be run as it stands
    ├── MachineError              (upstream's name) something about one machine
    │   ├── RequestedAssertionFailed   the product under test did not do what the test asked for
    │   │   ├── CommandFailed
    │   │   ├── CommandSucceeded       `fail` met a command that succeeded
    │   │   ├── WaitTimeout
    │   │   ├── UnitError
    │   │   └── PollingConditionError
    │   ├── Unsupported           this backend cannot do that, and why
    │   └── MachineUsageError     a method was called in a way that cannot work
    └── InfraError                the test bed broke; it says nothing about the product
        ├── BackendUnavailable
        ├── DeploymentError
        │   └── StartFailed            (also a MachineError) machines did not start
        ├── ImageError
        ├── LockTimeout
        ├── UnsafePath            another user could meddle with a file or directory of ours
        ├── MachineDied
        ├── ShellLost
        └── ConnectionLost
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

TAIL_LINES = 20
TAIL_BYTES = 4096
COMMAND_CHARACTERS = 1000


class NxcError(Exception):
    """Base of every error raised by nxc_testing."""


class ConfigError(NxcError):
    """A file or an option says something that cannot be used.

    :ivar file: the file it stands in, or None for an option.
    :ivar key: the key, line or option, as the user would look for it.
    :ivar problem: what is wrong.
    :ivar hint: what would be right; may be empty.
    """

    def __init__(self, problem: str, *, file: Path | None = None, key: str = "", hint: str = ""):
        self.file, self.key, self.problem, self.hint = file, key, problem, hint
        where = ": ".join(part for part in (str(file) if file else "", key) if part)
        text = f"{where}: {problem}" if where else problem
        super().__init__(f"{text}\n  {hint}" if hint else text)


class TestScriptError(ConfigError):
    """A testScript that is missing, empty, or ran nothing."""

    __test__ = False


class MachineError(NxcError):
    """Something about one machine; also the name that upstream's driver raises."""


class RequestedAssertionFailed(MachineError, AssertionError):
    """The test asked for something and the machine did not do it.

    The name is upstream's, so that scripts which catch it work unchanged.
    """


class CommandFailed(RequestedAssertionFailed):
    """A command that should have succeeded ended with another status.

    :ivar machine: the machine's name.
    :ivar command: the command as the test wrote it.
    :ivar status: its exit status; 124 where it was ended at its timeout.
    :ivar stdout: what it printed.
    :ivar stderr: what it complained.
    :ivar timeout: seconds after which it was ended; None where it ended by itself.
    """

    def __init__(
        self,
        machine: str,
        command: str,
        status: int,
        stdout: str,
        stderr: str,
        *,
        timeout: float | None = None,
    ):
        self.machine, self.command, self.status = machine, command, status
        self.stdout, self.stderr, self.timeout = stdout, stderr, timeout
        end = "failed" if timeout is None else f"was ended at its timeout of {timeout:g} s"
        super().__init__(
            f"{machine}: command `{shortened(command)}` {end} (exit code {status})"
            + outputs(stdout, stderr)
        )

    @property
    def timed_out(self) -> bool:
        """Whether its timeout ended it; a command may exit with 124 by itself."""
        return self.timeout is not None


class CommandSucceeded(RequestedAssertionFailed):
    """A command that should have failed succeeded.

    :ivar machine: the machine's name.
    :ivar command: the command as the test wrote it.
    """

    def __init__(self, machine: str, command: str, stdout: str, stderr: str = ""):
        self.machine, self.command = machine, command
        self.stdout, self.stderr = stdout, stderr
        super().__init__(
            f"{machine}: command `{shortened(command)}` unexpectedly succeeded"
            + outputs(stdout, stderr)
        )


class WaitTimeout(RequestedAssertionFailed):
    """What was waited for did not come in time.

    :ivar who: the machine's name, or `driver`.
    :ivar what: what was waited for.
    :ivar seconds: how long.
    :ivar evidence: what was seen at the last look.
    """

    def __init__(self, who: str, what: str, seconds: float, evidence: str = ""):
        self.who, self.what, self.seconds, self.evidence = who, what, seconds, evidence
        super().__init__(
            f"{who}: timed out after {seconds:.1f} s waiting for {what}"
            + (f"\n{evidence}" if evidence else "")
        )


class UnitError(RequestedAssertionFailed):
    """A systemd unit failed, or will never reach the state that was waited for."""


class PollingConditionError(RequestedAssertionFailed):
    """A polling condition turned false while its block was running."""


class Unsupported(MachineError):
    """A machine cannot do what was asked, on this backend.

    :ivar machine: the machine's name.
    :ivar method: the method or attribute that was asked for.
    :ivar backend: the backend's name.
    :ivar why: the reason, and what would do instead where there is something.
    """

    def __init__(self, machine: str, method: str, backend: str, why: str):
        self.machine, self.method, self.backend, self.why = machine, method, backend, why
        super().__init__(f"{machine}: {method} is not supported on backend {backend}: {why}")


class MachineUsageError(MachineError, ValueError):
    """An argument that cannot work: a NUL in a command, a negative duration, ..."""


class InfraError(NxcError):
    """The test bed broke. Nothing is said about the product under test."""


class BackendUnavailable(InfraError):
    """A backend cannot be used on this host; the message says what is missing."""


class DeploymentError(InfraError):
    """Machines could not be brought up."""


class StartFailed(DeploymentError, MachineError):
    """Some of several machines did not start; upstream raises a MachineError for it.

    :ivar reasons: why, by machine.
    """

    def __init__(self, reasons: Mapping[str, Exception]):
        self.reasons = reasons
        lines = "\n".join(f"{name}: {error}" for name, error in reasons.items())
        super().__init__(f"Failed to start the following machines:\n{lines}")


class ImageError(InfraError):
    """An image could not be built; the message ends with the build's last lines."""


class LockTimeout(InfraError):
    """A host-wide lock was not given in time; the message names its holder."""


class UnsafePath(InfraError):
    """A file or directory that must be this user's own is not; the message says what to do."""


class MachineDied(InfraError):
    """A machine ended while something was running on it.

    :ivar machine: the machine's name.
    :ivar reason: how it ended.
    :ivar console: the last lines of its console.
    """

    def __init__(self, machine: str, reason: str, *, doing: str = "", console: str = ""):
        self.machine, self.reason, self.doing, self.console = machine, reason, doing, console
        super().__init__(
            f"{machine} died ({reason})"
            + (f" during {doing}" if doing else "")
            + tail("console", console)
        )


class ShellLost(InfraError):
    """A machine's shell ended while the machine lived; the next command gets a new one.

    A command that was under way may have run in part.
    """


class ConnectionLost(InfraError):
    """Nothing was heard from a machine for too long; it may still be running."""


def shortened(command: str) -> str:
    """A command as it stands in a message: without its end if it is very long."""
    if len(command) <= COMMAND_CHARACTERS:
        return command
    return f"{command[:COMMAND_CHARACTERS]} ... ({len(command)} characters)"


def outputs(stdout: str, stderr: str) -> str:
    """The ends of both outputs of a command, as blocks of an error message."""
    return tail("stdout", stdout) + tail("stderr", stderr)


def tail(title: str, text: str, lines: int = TAIL_LINES) -> str:
    """The end of an output, as a block of an error message.

    :param title: what the text is.
    :param text: the whole text.
    :param lines: how many lines to show at most.
    :return: an indented block that starts with a newline, or nothing for an empty text.
    """
    kept: Sequence[str] = text[-TAIL_BYTES:].rstrip("\n").split("\n")[-lines:]
    if not text.strip():
        return ""
    cut = len("\n".join(kept)) < len(text.rstrip("\n"))
    body = "\n".join(f"    {line}" for line in kept)
    return f"\n  {title}{' (its end)' if cut else ''}:\n{body}"
