"""What a wait adds to the event it waits for, against looking every second as upstream does.

The event happens in the machine at a known time (both share the host's clock); what is printed
is how much later the wait returned. Both kinds of wait are measured in turn.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

from exec import machine

from nxc_testing.machine import Machine

POLL = 1.0
EVENTS: dict[str, tuple[str, str, Callable[[Machine], object]]] = {
    # name: what makes it happen, what looks for it once, the wait
    "file": ("touch /tmp/event", "test -e /tmp/event", lambda m: m.wait_for_file("/tmp/event")),
    "port": (
        "(nc -l -p 7777 >/dev/null 2>&1 &)",
        "nc -z localhost 7777",
        lambda m: m.wait_for_open_port(7777),
    ),
    "unit": (
        "systemctl start event",
        "systemctl is-active event",
        lambda m: m.wait_until_succeeds("systemctl is-active event"),
    ),
    "command": (
        "touch /tmp/event",
        "test -e /tmp/event",
        lambda m: m.wait_until_succeeds("test -e /tmp/event"),
    ),
    "console": (
        "echo event >/dev/console",
        "false",
        lambda m: m.wait_for_console_text("event"),
    ),
}
RESET = "rm -f /tmp/event /tmp/when; systemctl stop event; pkill -x nc || true"
UNIT = """cat >/run/systemd/system/event.service <<END
[Service]
ExecStart=/bin/sleep infinity
END
systemctl daemon-reload"""


def added(box: Machine, make: str, wait: Callable[[Machine], object], delay: float) -> float:
    """Seconds between the event and the wait's return."""
    box.succeed(RESET)
    script = f"sleep {delay}; {make}; date +%s.%N >/tmp/when"
    box.succeed(f"setsid bash -c '{script}' >/dev/null 2>&1 &")
    wait(box)
    returned = time.time()
    return returned - float(box.wait_until_succeeds("test -s /tmp/when && cat /tmp/when"))


def every_second(look: str) -> Callable[[Machine], None]:
    """A wait as upstream has it."""

    def wait(box: Machine) -> None:
        while box.execute(look)[0] != 0:
            time.sleep(POLL)

    return wait


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=float, default=4.0, help="seconds to the event at most")
    given = parser.parse_args()
    source = random.Random(1)
    with machine() as (box, _):
        box.succeed(UNIT)
        print(f"{'wait for':<10}{'added, median':>15}{'worst':>10}{'every 1 s':>12}{'ratio':>8}")
        for name, (make, look, wait) in EVENTS.items():
            ours, theirs = [], []
            for _ in range(given.rounds):
                delay = source.uniform(0.2, given.longest)
                ours.append(added(box, make, wait, delay))
                if look != "false":
                    theirs.append(added(box, make, every_second(look), delay))
            mine = statistics.median(ours)
            peer = statistics.median(theirs) if theirs else float("nan")
            print(
                f"{name:<10}{mine * 1e3:>13.0f}ms{max(ours) * 1e3:>8.0f}ms"
                f"{peer * 1e3:>10.0f}ms{peer / mine if mine > 0 else float('inf'):>8.1f}"
            )


if __name__ == "__main__":
    main()
