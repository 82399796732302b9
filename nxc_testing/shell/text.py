"""What is handed to bash for a command, by the composition's shell mode."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nxc_testing.composition.model import ShellMode
from nxc_testing.errors import MachineUsageError

STRICT = "set -euo pipefail; "
MAX_ARGUMENT = 128 * 1024 - 1

# A fork of a waiting bash differs from `bash -c` in what tells a shell about itself. Commands that
# may ask for it, files that they source included, get a bash of their own: slower by a
# millisecond, and never wrong.
_ASKS_ABOUT_ITSELF = re.compile(
    r"""\$\\?[$!_-] | \$\\?\{[$!_-]
    | \b(?:BASH|BASHPID|BASHOPTS|BASH_\w+|SHELLOPTS|SHLVL|PPID|PIPESTATUS|FUNCNAME|LINENO|_)\b
    | \b(?:return|source|eval|caller|jobs|fg|bg|disown|coproc|trap|HOSTNAME|set\s+-\w*[xvm])\b
    | \b(?:xtrace|verbose|monitor)\b
    | (?:^|[\s;&|({])\.\s """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Text:
    """A command as the agent takes it.

    :ivar body: what bash evaluates.
    :ivar own_bash: whether it gets a bash of its own.
    :ivar environment: how its shell was set up, by the agent's name for it.
    """

    body: bytes
    own_bash: bool
    environment: str


def prepare(command: str, mode: ShellMode, *, booting: bool = False) -> Text:
    """Make a command ready to be sent.

    :param command: as the test wrote it.
    :param mode: strict, as `bash -c 'set -euo pipefail; COMMAND'` (the NixOS test driver), or as
        nixos-compose runs it.
    :param booting: whether the machine may not have its profile yet.
    :raise MachineUsageError: if bash could not take it: it holds a NUL.
    """
    if "\0" in command:
        raise MachineUsageError(f"a command cannot hold a NUL byte: {command[:60]!r}")
    strict = mode is ShellMode.STRICT
    body = ((STRICT if strict else "") + command).encode(errors="surrogateescape")
    own_bash = len(body) <= MAX_ARGUMENT and bool(_ASKS_ABOUT_ITSELF.search(command))
    if booting:
        return Text(body, own_bash, "bare")
    if strict:
        return Text(body, own_bash, "strict")
    return Text(body, own_bash, "fresh" if own_bash else "login")
