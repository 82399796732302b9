"""What is kept of a test's commands for its report."""

from __future__ import annotations

import tracemalloc

from nxc_testing.events import CommandOutput, CommandStarted, Stream
from pytest_nxc.record import Record

MIB = 1 << 20


def test_much_output_takes_little_memory() -> None:
    record, piece = Record(), "x" * MIB
    record.take(CommandStarted(machine="alpha", id=1, command="yes", timeout=None))
    tracemalloc.start()
    try:
        for _ in range(50):
            event = CommandOutput(machine="alpha", id=1, stream=Stream.STDOUT, text=piece)
            record.take(event)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 8 * MIB
