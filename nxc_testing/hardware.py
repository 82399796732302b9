"""The methods of upstream's machines that need a virtual machine's hardware.

Each raises `Unsupported` until a backend brings what it needs, so that a script that asks for
them says so in one line and never meets an AttributeError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from nxc_testing.errors import Unsupported
from nxc_testing.waiting import DEFAULT_TIMEOUT, Duration

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
    "pid": PROCESS,
    "process": PROCESS,
    "qmp_client": MONITOR,
    "qmp_path": MONITOR,
    "serial_thread": MONITOR,
    "shared_dir": SHARED,
    "shell": ACCESS,
    "shell_path": ACCESS,
    "start_command": MONITOR,
    "vsock_guest": VSOCK,
    "vsock_host": VSOCK,
}
"""What upstream's machines have as attributes, and why this one does not."""


class Hardware:
    """What only a virtual machine has: screen, keyboard, monitor, terminals, firmware.

    :cvar keep_machine_state: machines are always made anew.
    :cvar keep_vm_state: the same, by its name before 26.05.
    """

    name: str
    backend: str
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
        """Send a command to QEMU's monitor."""
        self._missing("send_monitor_command", MONITOR)

    def wait_for_monitor_prompt(self) -> str:
        """Wait for the prompt of QEMU's monitor."""
        self._missing("wait_for_monitor_prompt", MONITOR)

    def wait_for_qmp_event(self, event_filter: Any, timeout: Duration = 600) -> dict[str, Any]:  # noqa: ANN401
        """Wait for an event of QEMU."""
        self._missing("wait_for_qmp_event", MONITOR)

    def get_tty_text(self, tty: str) -> str:
        """Read a virtual terminal."""
        self._missing("get_tty_text", TTY)

    def wait_until_tty_matches(
        self, tty: str, regexp: str, timeout: Duration | None = DEFAULT_TIMEOUT
    ) -> None:
        """Wait until a virtual terminal shows a text."""
        self._missing("wait_until_tty_matches", TTY)

    def dump_tty_contents(self, tty: str) -> None:
        """Log what a virtual terminal shows."""
        self._missing("dump_tty_contents", TTY)

    def send_console(self, chars: str) -> None:
        """Type into the serial console."""
        self._missing("send_console", CONSOLE_INPUT)

    def console_interact(self) -> None:
        """Talk to the serial console by hand."""
        self._missing("console_interact", CONSOLE_INPUT)

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
