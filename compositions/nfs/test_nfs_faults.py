"""A server that goes away and comes back, and clients that are cut off."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nxc_testing.machine import Machine

WRITE = "dd if=/dev/zero of={} bs=1M count=4 conv=fsync"


def numbers(client: Machine, share: str) -> list[int]:
    return [int(line) for line in client.succeed(f"cat {share}/numbers").split()]


def test_writing_goes_on_over_a_reboot_of_the_server(
    share: str, server: Machine, client1: Machine, client2: Machine
) -> None:
    count = f"n=0; until [ -e /run/stop ]; do n=$((n + 1)); echo $n >>{share}/numbers; done"
    client1.succeed("rm -f /run/stop")
    with ThreadPoolExecutor() as pool:
        counting = pool.submit(client1.succeed, count, timeout=300)
        client1.wait_for_file(f"{share}/numbers", timeout=60)
        before = numbers(client2, share)[-1]

        server.reboot()

        client2.wait_until_succeeds(f"[ $(tail -n 1 {share}/numbers) -gt {before + 10} ]")
        client1.succeed("touch /run/stop")
        counting.result()
    written = numbers(client2, share)
    assert written == list(range(1, len(written) + 1))


def test_lock_and_write_wait_for_a_server_that_crashed(
    held: str, share: str, server: Machine, client2: Machine
) -> None:
    server.crash()
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(client2.succeed, WRITE.format(f"{share}/late"), timeout=300)
        client2.wait_until_succeeds("pgrep --exact dd")
        assert not writing.done()

        server.start()

        writing.result()
    assert client2.succeed(f"stat -c %s {share}/late") == f"{4 << 20}\n"
    # client1 has its lock from the server before, and was given it anew.
    client2.fail(f"flock --nonblock {held} true", timeout=120)


def test_client_that_is_cut_off_waits_and_recovers(
    share: str, server: Machine, client1: Machine, client2: Machine
) -> None:
    client1.block()
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(client1.succeed, WRITE.format(f"{share}/late"), timeout=300)
        client1.wait_until_succeeds("pgrep --exact dd")
        client2.succeed(f"echo in time >{share}/other", timeout=60)
        # It has not even been created; the other client would go on to believe that.
        server.fail(f"test -e /srv/nfs{share.removeprefix('/mnt')}/late")
        assert not writing.done()

        client1.unblock()

        writing.result()
    assert client2.succeed(f"stat -c %s {share}/late") == f"{4 << 20}\n"


def test_client_that_is_cut_off_for_long_loses_its_lock(
    held: str, share: str, client1: Machine, client2: Machine
) -> None:
    client2.fail(f"flock --nonblock {held} true")

    client1.block()

    client2.wait_until_succeeds(f"flock --nonblock {held} true", timeout=120)
    client1.unblock()
    client1.succeed(f"echo back >{share}/file", timeout=300)
