"""The methods of upstream's machines that need a virtual machine's hardware.

Each raises `Unsupported` where the backend does not bring what it needs, so that a script that
asks for it says so in one line and never meets an AttributeError.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from nxc_testing.backends.base import (
    HasMonitor,
    HasTerminals,
    QemuMonitor,
    SharesDirectory,
    TakesConsoleInput,
)
from nxc_testing.errors import MachineUsageError, Unsupported, WaitTimeout, tail
from nxc_testing.events import Logged
from nxc_testing.logs import waiting
from nxc_testing.qmp import QmpClient
from nxc_testing.waiting import DEFAULT_TIMEOUT, Deadline, Duration, seconds
from nxc_testing.waits import Waits

if TYPE_CHECKING:
    from nxc_testing.interactive import ConsoleTerminal

SCREEN = "the machine has no screen"
KEYBOARD = "the machine has no keyboard; use interact() for programs on a terminal"
MONITOR = "there is no QEMU behind the machine"
TTY = "the machine has no virtual terminals; use interact()"
FIRMWARE = "the machine has no EFI firmware"
CONSOLE_INPUT = "its console takes no input; use interact()"
ACCESS = "use interact(), or the command that --nxc-keep prints"
VSOCK = "the machine has no vsock"
PROCESS = "no process of this host stands for the machine"
SHARED = "no directory is shared with the host; use copy_from_host() and copy_from_machine()"

ATTRIBUTES = {
    "efi_vars": FIRMWARE,
    "get_systemd_process": PROCESS,
    "monitor": MONITOR,
    "monitor_path": MONITOR,
    "process": PROCESS,
    "qmp_path": MONITOR,
    "serial_thread": MONITOR,
    "shell": ACCESS,
    "shell_path": ACCESS,
    "start_command": MONITOR,
    "vsock_guest": VSOCK,
    "vsock_host": VSOCK,
}
"""What upstream's machines have as attributes, and why this one does not."""


# In the text of a terminal there are no ends of lines.
TTY_TEXT = "fold -w \"$(stty -F /dev/tty{0} size | cut -d' ' -f2)\" /dev/vcs{0}"


class Hardware(Waits):
    """What only a virtual machine has: screen, keyboard, monitor, terminals, firmware.

    :cvar keep_machine_state: machines are always made anew.
    :cvar keep_vm_state: the same, by its name before 26.05.
    """

    keep_machine_state: ClassVar[bool] = False
    keep_vm_state: ClassVar[bool] = False

    if not TYPE_CHECKING:  # a checker shall go on telling what is misspelt

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (there is none)
            if name in ATTRIBUTES:
                self._missing(name, ATTRIBUTES[name])
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _missing(self, method: str, why: str) -> NoReturn:
        raise Unsupported(self.name, method, self.backend, why)

    def screenshot(self, filename: str) -> None:
        """Take a picture of the screen."""
        self._missing("screenshot", SCREEN)

    def get_screen_text(self) -> str:
        """Read the screen by OCR."""
        self._missing("get_screen_text", SCREEN)

    def get_screen_text_variants(self) -> list[str]:
        """Read the screen by OCR, in several ways."""
        self._missing("get_screen_text_variants", SCREEN)

    def wait_for_text(self, regex: str, timeout: Duration | None = DEFAULT_TIMEOUT) -> None:
        """Wait until OCR reads a text on the screen."""
        self._missing("wait_for_text", SCREEN)

    def send_key(self, key: str, delay: Duration | None = 0.01, log: bool | None = True) -> None:
        """Press a key."""
        self._missing("send_key", KEYBOARD)

    def send_chars(self, chars: str, delay: Duration | None = 0.01) -> None:
        """Type a text."""
        self._missing("send_chars", KEYBOARD)

    def send_monitor_command(self, command: str) -> str:
        """Send a command to QEMU's monitor for humans.

        :return: what it prints.
        """
        self.run_callbacks()
        return self._monitor("send_monitor_command").human(command)

    def wait_for_monitor_prompt(self) -> str:
        """Nothing is left to wait for: every answer of QEMU comes with its command."""
        self._monitor("wait_for_monitor_prompt")
        return ""

    @property
    def qmp_client(self) -> QmpClient:
        """QEMU's machine protocol."""
        return QmpClient(self._monitor("qmp_client"))

    def wait_for_qmp_event(
        self, event_filter: Callable[[dict[str, Any]], bool], timeout: Duration = 600
    ) -> dict[str, Any]:
        """Wait for an event of QEMU that no earlier call has matched.

        :param event_filter: whether an event is the one.
        :raise WaitTimeout: with the names of the events that came instead.
        :raise MachineDied: if the machine ends meanwhile.
        """
        monitor = self._monitor("wait_for_qmp_event")
        what, deadline = "a QMP event", Deadline(timeout)
        seen: list[str] = []

        def accept(event: dict[str, Any]) -> bool:
            seen.append(event["event"])
            return bool(event_filter(event))

        boot = self.node.boot
        assert boot is not None
        boot.on_end(monitor.wake)
        with waiting(self._events, self.name, what, deadline):
            if event := monitor.wait_for_event(accept, deadline, boot.ended.is_set):
                return event
            if boot.ended.is_set():
                raise self._died(doing=f"the wait for {what}")
            came = f"  these came: {', '.join(seen)}" if seen else "  none came"
            raise WaitTimeout(self.name, what, deadline.elapsed(), came)

    @property
    def shared_dir(self) -> Path:
        """A directory of the host that all machines of the deployment have at /tmp/shared.

        :raise Unsupported: if there is none, or this process cannot reach it.
        """
        if not isinstance(self.node, SharesDirectory):
            self._missing("shared_dir", SHARED)
        return self.node.shared_dir

    @property
    def pid(self) -> int:
        """The process of this host that is the machine."""
        if not isinstance(self.node, HasMonitor):
            self._missing("pid", PROCESS)
        return self.node.process_id()

    def get_tty_text(self, tty: str) -> str:
        """Read a virtual terminal.

        :param tty: its number.
        """
        self._check_terminals("get_tty_text")
        return self._tty_text(tty, Deadline(DEFAULT_TIMEOUT))

    def wait_until_tty_matches(
        self, tty: str, regexp: str, timeout: Duration | None = DEFAULT_TIMEOUT
    ) -> None:
        """Wait until a virtual terminal shows a text.

        :raise WaitTimeout: with what it shows.
        """
        self._check_terminals("wait_until_tty_matches")
        text = ""

        def matches(deadline: Deadline) -> bool:
            nonlocal text
            text = self._tty_text(tty, deadline)
            return re.search(regexp, text) is not None

        self.wait(
            f"{regexp!r} on tty{tty}",
            matches,
            timeout,
            # Without the empty rest of each line, and of the screen.
            evidence=lambda: tail(f"tty{tty}", re.sub(r"\s+$", "", text, flags=re.M)).lstrip("\n"),
        )

    def dump_tty_contents(self, tty: str) -> None:
        """Log what a virtual terminal shows."""
        self._check_terminals("dump_tty_contents")
        text = self._tty_text(tty, Deadline(DEFAULT_TIMEOUT))
        self._events.emit(Logged(machine=self.name, message=text))

    def send_console(self, chars: str) -> None:
        """Type into the console."""
        self.run_callbacks()
        self._console_node("send_console").type_on_console(chars.encode())

    def _console_node(self, method: str) -> TakesConsoleInput:
        if not isinstance(self.node, TakesConsoleInput):
            self._missing(method, CONSOLE_INPUT)
        self._ensure_started()
        return self.node

    def _monitor(self, method: str) -> QemuMonitor:
        if not isinstance(self.node, HasMonitor):
            self._missing(method, MONITOR)
        self._ensure_started()
        return self.node.monitor()

    def _check_terminals(self, method: str) -> None:
        if not isinstance(self.node, HasTerminals):
            self._missing(method, TTY)

    def _tty_text(self, tty: str, deadline: Deadline) -> str:
        return self.look(TTY_TEXT.format(tty), deadline).stdout.decode(errors="replace")

    def interact_console(self, timeout: Duration | None = DEFAULT_TIMEOUT) -> ConsoleTerminal:
        """The serial console as a pexpect spawn, from here on.

        :param timeout: seconds that each `expect` waits; None for as long as it takes.
        """
        from nxc_testing.interactive import ConsoleTerminal  # noqa: PLC0415 - pexpect if used

        limit = seconds(timeout)
        node = self._console_node("interact_console")
        return ConsoleTerminal(self.name, self._console, node.type_on_console, limit)

    def console_interact(self) -> None:
        """Type lines into the serial console by hand, until Ctrl-D.

        What it answers is in the log.

        :raise MachineUsageError: if nobody sits at a terminal.
        """
        self._console_node("console_interact")
        if not sys.stdin.isatty():
            why = "console_interact() needs a terminal: use it in `nxc-test shell`"
            raise MachineUsageError(f"{self.name}: {why}")
        self._events.emit(Logged(machine=self.name, message="its console takes lines; Ctrl-D ends"))
        while line := sys.stdin.readline():
            self.send_console(line)

    def shell_interact(self, address: str | None = None) -> None:
        """Talk to the machine's shell by hand."""
        self._missing("shell_interact", ACCESS)

    def switch_root(self) -> None:
        """Leave the initial RAM disk."""
        self._missing("switch_root", "the machine boots without an initial RAM disk")

    def create_efi_vars(self) -> None:
        """Make an EFI variable store."""
        self._missing("create_efi_vars", FIRMWARE)

    def read_efi_vars(self) -> Any:  # noqa: ANN401
        """Read the EFI variable store."""
        self._missing("read_efi_vars", FIRMWARE)

    def write_efi_vars(self, add: Any) -> None:  # noqa: ANN401
        """Change the EFI variable store."""
        self._missing("write_efi_vars", FIRMWARE)

    def dump_efi_vars(self) -> None:
        """Log the EFI variable store."""
        self._missing("dump_efi_vars", FIRMWARE)

    def ssh_backdoor_command(self) -> str:
        """How to reach the machine by SSH over vsock."""
        self._missing("ssh_backdoor_command", VSOCK)
