"""`nxc-test shell` on a terminal, driven as a person would."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import termios
from dataclasses import dataclass
from pathlib import Path

from pexpect import EOF
from pexpect.fdpexpect import fdspawn
from run_lab import BIN, Run, RunLab

PROMPT = ">>> "
TIMEOUT = 20.0
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07)")


@dataclass
class Prompt(Run):
    """A prompt in a process of its own, on a terminal of its own."""

    terminal: fdspawn[str]

    @property
    def text(self) -> str:
        """What was read of what it has shown."""
        return self.terminal.logfile_read.getvalue()

    def expect(self, text: str, timeout: float = TIMEOUT) -> str:
        """Wait until something is shown.

        :return: what was shown before it, without the terminal's escapes.
        """
        self.terminal.expect_exact(text, timeout)
        return ESCAPES.sub("", self.terminal.before or "").replace("\r", "")

    def run(self, line: str, timeout: float = TIMEOUT) -> str:
        """Type a line.

        :return: what is shown until the prompt is back.
        """
        self.type(f"{line}\n")
        return self.expect(PROMPT, timeout)

    def type(self, keys: str) -> None:
        """Press some keys."""
        self.terminal.send(keys)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.type("\x03")

    def end_of_input(self) -> None:
        """Press Ctrl-D."""
        self.type("\x04")

    def hang_up(self) -> None:
        """Close the terminal's window."""
        self.terminal.close()

    def ends(self, timeout: float = TIMEOUT) -> int:
        """Wait for its end.

        :return: its exit status.
        """
        if self.terminal.isalive():
            # What is not read could keep it from its end.
            self.terminal.expect(EOF, timeout)
        return super().ends(timeout)


def start(lab: RunLab, *arguments: str | Path, **environment: str) -> Prompt:
    """Start `nxc-test shell` on a terminal.

    :param environment: more than the lab's; TERM says what the terminal can do.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 150))
    with open(theirs, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            # In a session of its own, to which the terminal belongs.
            ["setsid", "--ctty", BIN / "nxc-test", "shell", *arguments],
            cwd=lab.root,
            env={
                **lab.environment,
                "NXC_BACKEND": lab.backend,
                "XDG_STATE_HOME": str(lab.root / "state"),
                **environment,
            },
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
    spawn = fdspawn(ours, encoding="utf-8", codec_errors="replace")
    spawn.logfile_read = io.StringIO()
    prompt = Prompt(lab, process, Path(os.devnull), spawn)
    lab.runs.append(prompt)
    return prompt
