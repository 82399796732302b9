"""What a machine's console has printed, kept whole, and waiting for a text in it."""

from __future__ import annotations

import codecs
import re
import threading
from collections.abc import Callable

from nxc_testing.waiting import Deadline


class Console:
    """The console of one machine over all its boots.

    :param emit: told every piece of text that comes, whole lines where possible.
    """

    def __init__(self, emit: Callable[[str], None]):
        self._emit = emit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._line = ""
        self._whole = ""
        self._pieces: list[str] = []
        self._boot_start = 0
        self._seen = 0
        self._changed = threading.Condition()
        self._followers: list[Callable[[bytes], None]] = []

    def follow(self, sink: Callable[[bytes], None]) -> None:
        """Hand on what comes from now on, as it comes.

        :param sink: must not block.
        """
        with self._changed:
            self._followers.append(sink)

    def unfollow(self, sink: Callable[[bytes], None]) -> None:
        """Hand nothing on any more."""
        with self._changed:
            self._followers.remove(sink)

    def feed(self, data: bytes) -> None:
        """Take what came; from any thread."""
        with self._changed:
            # Terminals end lines with CR LF, and a read may end between the two.
            text = self._held + self._decoder.decode(data)
            self._held = "\r" * text.endswith("\r")
            lines = self._take(text.removesuffix("\r").replace("\r\n", "\n"))
            followers = list(self._followers)
        for follower in followers:
            follower(data)
        if lines:
            self._emit(lines)

    def new_boot(self) -> None:
        """A new boot begins: `text` starts anew; waiting goes on where it was."""
        with self._changed:
            cut = self._held + self._decoder.decode(b"", final=True)
            self._held = ""
            lines = self._take(cut)
            if self._line:
                lines += self._take("\n")
            self._boot_start = len(self._all())
        if lines:
            self._emit(lines)

    def wake(self) -> None:
        """Let those who wait look at what interrupts them."""
        with self._changed:
            self._changed.notify_all()

    @property
    def text(self) -> str:
        """Everything since the present boot began."""
        with self._changed:
            return self._all()[self._boot_start :]

    @property
    def history(self) -> str:
        """Everything since the first boot began."""
        with self._changed:
            return self._all()

    def wait(
        self, pattern: re.Pattern[str], deadline: Deadline, interrupted: Callable[[], bool]
    ) -> re.Match[str] | None:
        """Wait for a text that no earlier call has matched.

        Nothing is lost by waiting: the search begins behind the last match, not behind all
        that was read for it.

        :param pattern: searched in the text with its line breaks.
        :param interrupted: true ends the wait.
        :return: the match; None at the deadline or when interrupted.
        """
        with self._changed:
            while True:
                last = deadline.expired or interrupted()
                if match := pattern.search(self._all(), self._seen):
                    self._seen = match.end()
                    return match
                if last:
                    return None
                self._changed.wait(deadline.remaining())

    # --- with the lock held

    def _take(self, text: str) -> str:
        """Add a text; the lines that it completes."""
        self._pieces.append(text)
        self._changed.notify_all()
        lines, newline, self._line = (self._line + text).rpartition("\n")
        return lines + newline

    def _all(self) -> str:
        # Joined only when asked for: a string that grows with every piece costs its square.
        if self._pieces:
            self._whole = "".join((self._whole, *self._pieces))
            self._pieces.clear()
        return self._whole
