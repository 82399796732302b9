"""What a console says of a machine's end."""

from __future__ import annotations

import pytest

from nxc_testing.backends.qemu.verdict import LINE_LIMIT, Verdict

PANIC = b"[    5.1] Kernel panic - not syncing: Fatal exception\r\n"


@pytest.mark.parametrize(
    ("console", "reason"),
    [
        (PANIC, "kernel panic: Fatal exception"),
        (
            b"[ 1.0] BUG: unable to handle page fault for address: 0\r\n" + PANIC,
            "kernel panic: Fatal exception (unable to handle page fault for address: 0)",
        ),
        (
            b"[ 1.0] kernel BUG at fs/inode.c:1!\n[ 1.1] Oops: 0002\n" + PANIC,
            "kernel panic: Fatal exception (kernel BUG at fs/inode.c:1!)",
        ),
        (
            b"[ 9.9] Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is on\n",
            "kernel panic: Out of memory: system-wide panic_on_oom is on",
        ),
        (
            b"You are in emergency mode. After logging in, type ...\n",
            "it is in emergency mode",
        ),
        (b"nxc: no way to boot: its disk cannot be mounted\n", "it cannot boot: its disk cannot"),
    ],
)
def test_signs_of_an_end_are_read(console: bytes, reason: str) -> None:
    verdict = Verdict()
    assert verdict.feed(console)
    assert verdict.reason.startswith(reason)


@pytest.mark.parametrize(
    "console",
    [
        b"[ 99.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!\n",
        b"[ 99.0] Out of memory: Killed process 1 (x) in its own group\n",
        b"all is well\n",
        bytes(range(256)) * 100,
    ],
)
def test_other_things_end_nothing(console: bytes) -> None:
    verdict = Verdict()
    assert not verdict.feed(console)
    assert verdict.reason == ""


def test_a_line_may_come_in_pieces() -> None:
    verdict = Verdict()
    told = [verdict.feed(PANIC[i : i + 1]) for i in range(len(PANIC))]
    assert told == [False] * (len(PANIC) - 1) + [True]


def test_it_is_told_once() -> None:
    verdict = Verdict()
    assert verdict.feed(PANIC)
    assert not verdict.feed(PANIC)


def test_a_line_without_end_is_not_kept() -> None:
    verdict = Verdict()
    for _ in range(100):
        verdict.feed(b"x" * LINE_LIMIT)
    assert verdict.feed(b"\n" + PANIC)
