"""Reads on a console how a machine comes to an end that it cannot tell otherwise."""

from __future__ import annotations

import re

LINE_LIMIT = 4096
"""Bytes of a line that are looked at; what is printed may be anything."""

SIGNS = (
    (re.compile(rb"Kernel panic - not syncing: (.+)"), "kernel panic: {}"),
    (re.compile(rb"nxc: no way to boot: (.+)"), "it cannot boot: {}"),
    (re.compile(rb"(You are in emergency mode)"), "it is in emergency mode"),
)
"""What ends a machine, and how that is put; the text in parentheses goes in."""

CAUSES = (
    re.compile(rb"(kernel BUG at .+)"),
    re.compile(rb"BUG: ((?:unable to handle|kernel NULL pointer|KASAN).+)"),
    re.compile(rb"(Oops: .+)"),
    re.compile(rb"(Out of memory: .+)"),
)
"""What the kernel prints before it panics because of it."""


class Verdict:
    """Listens to the console of one boot.

    :ivar reason: how the machine ends, in words; empty as long as nothing says that it does.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._cause = ""
        self._line = b""

    def feed(self, data: bytes) -> bool:
        """Take what came.

        :return: whether it brought the verdict.
        """
        if self.reason:
            return False
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[-LINE_LIMIT:]
        return any(self._settles(line[-LINE_LIMIT:].strip()) for line in lines)

    def _settles(self, line: bytes) -> bool:
        for pattern, form in SIGNS:
            if found := pattern.search(line):
                cause = f" ({self._cause})" if self._cause else ""
                self.reason = form.format(found[1].decode(errors="replace")) + cause
                return True
        for pattern in CAUSES:
            if not self._cause and (found := pattern.search(line)):
                self._cause = found[1].decode(errors="replace")
        return False
