"""The root shell that a machine of NixOS' tests has on hvc0, and what it is good for.

QEMU drops what a machine prints on hvc0 where nobody reads it at once. So that shell only opens
better ones: at serial ports that the machine was given. Where it has none of them, a relay carries
one shell over hvc0.
"""

from __future__ import annotations

import base64
import re
import secrets
import socket
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path

from nxc_testing.backends.base import Boot, Channel
from nxc_testing.backends.qemu.relay import END, Relay
from nxc_testing.errors import ConnectionLost
from nxc_testing.images.kernels import GUEST
from nxc_testing.waiting import Deadline

BANNER = b"Spawning backdoor root shell..."
SCRIPTS = Path(__file__).with_name("guest")

ANSWER_TIMEOUT = 60.0
"""Seconds until a shell on hvc0 that does not answer is given up."""

NEWS_TIMEOUT = 3.0
READ_SIZE = 1 << 16
KEPT = 1 << 16
SHOWN = 200


class Backdoor:
    """The shell on hvc0 of one boot. Its output is read at all times, by a thread of its own.

    :param name: the machine's, for messages.
    :param connection: QEMU's end of hvc0; owned from now on.
    :ivar opened_ports: whether there are shells at serial ports.
    """

    def __init__(self, name: str, connection: socket.socket):
        self.name, self._connection = name, connection
        self.opened_ports = False
        self._asked = self._spawned = False
        self._heard = bytearray()
        self._gone = False
        self._news = threading.Condition()
        self._asking, self._sending = threading.Lock(), threading.Lock()
        self._relay: Relay | None = None
        threading.Thread(target=self._read, name=f"nxc-hvc0-{name}", daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := self._connection.recv(READ_SIZE):
                if self._relay and not self._relay.ended.is_set():
                    self._relay.feed(data)
                    continue
                with self._news:
                    self._heard += data
                    del self._heard[:-KEPT]
                    self._news.notify_all()
        with self._news:
            self._gone = True
            self._news.notify_all()
        self._connection.close()
        if self._relay:
            self._relay.gone()

    def _send(self, data: bytes) -> None:
        with self._sending, suppress(OSError):
            self._connection.sendall(data)

    def open_ports(self, boot: Boot, deadline: Deadline) -> bool:
        """See to shells at the serial ports, once the machine has booted so far.

        :return: whether it has such ports.
        :raise ConnectionLost: if the backdoor does not come, or not answer.
        """
        with self._asking:
            if not self._asked:
                self._wait_for_spawn(boot, deadline)
                token = secrets.token_hex(8)
                self._send(_line(f"bash -s {token}", _opening()))
                answer = re.compile(token.encode() + rb" (yes|no)\s")
                self.opened_ports = self._await(answer, boot, Deadline(ANSWER_TIMEOUT))[1] == b"yes"
                self._asked = True
            return self.opened_ports

    def open_shell(self, boot: Boot, deadline: Deadline) -> Channel:
        """A root shell over hvc0 itself; there is one at a time.

        :raise ConnectionLost: if it is in use, or does not come.
        """
        with self._asking:
            if self._relay and not self._relay.ended.wait(NEWS_TIMEOUT):
                raise ConnectionLost(f"{self.name}: its only shell, on hvc0, is in use")
            token = secrets.token_hex(8)
            self._relay = relay = Relay(token, self._send)
            place = "/run/nxc-relay"
            after = f"perl {place} {token}; printf '\\n%s%s\\n' {token} '{END.decode()}'"
            self._send(_line(f"cat >{place}; {after}", (SCRIPTS / "relay.pl").read_bytes()))
            limit = Deadline(deadline.limit(ANSWER_TIMEOUT))
            while not relay.begun.wait(0.1):
                if relay.ended.is_set():
                    why = "ended at once: it is made of perl, which has to be there"
                elif limit.expired or self._gone or boot.ended.is_set():
                    why = "did not answer"
                else:
                    continue
                relay.close()
                raise ConnectionLost(f"{self.name}: hvc0 gives no shell: its relay {why}")
            return relay.channel()

    def signal_init(self, number: int) -> bool:
        """Send a signal to the machine's first process.

        :return: whether there is a shell that can.
        """
        if not self._spawned and BANNER not in self._heard:
            return False
        if self._relay and not self._relay.ended.is_set():
            self._relay.signal_init(number)
        else:
            self._send(f"\nkill -{number} 1\n".encode())
        return True

    def _wait_for_spawn(self, boot: Boot, deadline: Deadline) -> None:
        if not self._spawned:
            self._await(re.compile(re.escape(BANNER) + rb"\s*"), boot, deadline)
            self._spawned = True

    def _await(self, wanted: re.Pattern[bytes], boot: Boot, deadline: Deadline) -> re.Match[bytes]:
        """Wait until something is heard; what is before it is forgotten."""
        with self._news:
            while not (found := wanted.search(bytes(self._heard))):
                if self._gone:
                    # Its QEMU has ended, and the news is on its way.
                    boot.ended.wait(NEWS_TIMEOUT)
                if boot.ended.is_set() or self._gone:
                    raise ConnectionLost(f"{self.name}: it ended")
                if deadline.expired:
                    raise ConnectionLost(self._silence(deadline))
                self._news.wait(deadline.limit(0.5))
            del self._heard[: found.end()]
            return found

    def _silence(self, deadline: Deadline) -> str:
        heard = self._heard[-SHOWN:].decode(errors="replace").strip()
        said = f"; hvc0 says {heard!r}" if heard else "; nothing came over hvc0"
        if self._spawned:
            return f"{self.name}: the shell on hvc0 does not answer{said}"
        return (
            f"{self.name}: no {BANNER.decode()!r} on hvc0 after {deadline.elapsed():.0f} s: "
            f"the machine has no backdoor (testing.backdoor of NixOS), or did not boot{said}"
        )

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


def _line(command: str, text: bytes) -> bytes:
    """A line for a shell: runs a command that reads a text."""
    # Blank at first: what a terminal may have left half typed is not run on into it.
    return b"\nprintf %s " + base64.b64encode(text) + f" | base64 -d | {command}\n".encode()


@cache
def _opening() -> bytes:
    text = (SCRIPTS / "open-ports").read_text()
    return text.replace("\nSHELLS\n", f"\n{(GUEST / 'shells').read_text()}").encode()
