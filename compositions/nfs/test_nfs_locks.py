"""Locks of one client hold for the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nxc_testing.machine import Machine


def test_lock_of_one_client_is_seen_by_the_other(held: str, client2: Machine) -> None:
    client2.fail(f"flock --nonblock {held} true")


def test_client_that_waits_gets_the_lock_on_release(
    held: str, client1: Machine, client2: Machine
) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client2.succeed, f"flock {held} echo mine", timeout=120)
        client2.wait_until_succeeds("pgrep --exact flock")
        assert not waiting.done()

        client1.succeed("systemctl stop holder")

        assert waiting.result() == "mine\n"


def test_lock_goes_with_its_holder(held: str, client1: Machine, client2: Machine) -> None:
    client1.succeed("systemctl kill --signal=KILL holder")

    client2.wait_until_succeeds(f"flock --nonblock {held} true", timeout=60)
