"""From nothing to the first command in a virtual machine: this project's images against Debian's.

The plain way is what there is without us: what debootstrap installs when it is told no more (the
packages of priority "important"), with Debian's kernel for clouds and its own initial RAM disk; and
a shell at a serial port as soon as `basic.target` is reached, as ours. Both
ways run in turn, on the same QEMU with the same acceleration, round by round; the ratio is of
medians of one run.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nxc_testing.backends.qemu import acceleration
from nxc_testing.backends.qemu.command import PROGRAM, accelerator_options
from nxc_testing.composition import Composition, Network, Role
from nxc_testing.driver import Driver
from nxc_testing.images.builder import ensure
from nxc_testing.images.cache import Cache
from nxc_testing.images.vm import into_vm
from nxc_testing.launch import Settings, open_driver
from nxc_testing.session import Session

BOOT_TIMEOUT = 300.0

PLAIN_RECIPE = """
[image]
name = "bench-plain"
suite = "bookworm"
packages = [
    "adduser", "apt-utils", "cpio", "cron", "debconf-i18n", "dmidecode", "fdisk", "ifupdown",
    "init", "iproute2", "iputils-ping", "isc-dhcp-client", "kmod", "less",
    "linux-image-cloud-amd64", "logrotate", "nano", "netbase", "nftables", "procps",
    "readline-common", "sensible-utils", "systemd", "systemd-sysv", "tasksel-data", "udev",
    "vim-tiny", "whiptail",
]
scripts = ["enable.sh"]

[files]
"/usr/local/sbin/shell" = { mode = "0755", content = '''
#!/bin/sh
while ! [ -e /dev/virtio-ports/shell ]; do sleep 0.1; done
exec sh -c 'echo >&0 && exec sh' <>/dev/virtio-ports/shell >&0
''' }
"/etc/systemd/system/shell.service" = { content = '''
[Service]
ExecStart=/bin/sh /usr/local/sbin/shell
[Install]
WantedBy=basic.target
''' }
"""


@contextmanager
def deployment(count: int) -> Iterator[Driver]:
    """Machines of the built-in recipe."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "image.toml"
        source.write_text('[image]\nname = "bench"\nextends = "base"\n')
        role = Role("box", source, count=count, networks=("lan",))
        composition = Composition("bench", source.parent, source, (role,), (Network("lan"),))
        session = Session()
        try:
            with open_driver(composition, Settings(backend="qemu"), session) as driver:
                yield driver
        finally:
            session.close()


def ours(driver: Driver) -> float:
    """Start every machine, and run a command in each.

    :return: seconds.
    """
    began = time.monotonic()
    driver.start_all()
    for machine in driver.machines:
        machine.succeed("true")
    took = time.monotonic() - began
    for machine in driver.machines:
        machine.crash()
    return took


class Plain:
    """A Debian system as it is, booted with its own initial RAM disk."""

    def __init__(self, directory: Path, accelerator: str):
        self._directory = directory
        recipe = directory / "image.toml"
        recipe.write_text(PLAIN_RECIPE)
        script = directory / "enable.sh"
        script.write_text("#!/bin/sh\nsystemctl enable shell.service\n")
        script.chmod(0o755)
        image = ensure(recipe)
        made = into_vm(image)
        self._disk, self._kernel = made.disk, made.kernel
        self._accelerator = accelerator
        listing = subprocess.run(
            ["tar", "-tf", image.rootfs, "--wildcards", "./boot/initrd.img-*"],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        self._initrd = directory / "initrd"
        with self._initrd.open("wb") as out:
            subprocess.run(["tar", "-xOf", image.rootfs, listing[0]], stdout=out, check=True)

    def __call__(self) -> float:
        """Boot, and run a command.

        :return: seconds.
        """
        overlay, path = self._directory / "overlay", self._directory / "shell"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-b", self._disk, "-F", "raw", overlay],
            check=True,
        )
        began = time.monotonic()
        with socket.socket(socket.AF_UNIX) as listener:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(BOOT_TIMEOUT)
            process = subprocess.Popen(self._command(overlay, path))
            try:
                shell, _ = listener.accept()
                with shell:
                    shell.settimeout(BOOT_TIMEOUT)
                    shell.recv(1)
                    shell.sendall(b"true; echo done\n")
                    answer = b""
                    while b"done" not in answer:
                        answer += shell.recv(4096)
                    return time.monotonic() - began
            finally:
                process.kill()
                process.wait()

    def _command(self, overlay: Path, shell: Path) -> list[str]:
        return [
            *(PROGRAM, "-display", "none", "-machine", "q35", "-m", "1G"),
            *accelerator_options(self._accelerator),
            *("-kernel", str(self._kernel), "-initrd", str(self._initrd)),
            *("-append", "root=/dev/vda console=ttyS0", "-serial", f"file:{os.devnull}"),
            *("-drive", f"file={overlay},format=qcow2,if=virtio,cache=unsafe"),
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=shell,path={shell}"),
            *("-device", "virtserialport,chardev=shell,name=shell"),
        ]


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--machines", type=int, nargs="*", default=[1, 2, 4])
    options = parser.parse_args()
    kernel = into_vm(ensure("base"))
    verdict = acceleration.choose(kernel, Cache())
    print(f"acceleration: {verdict.accelerator} ({verdict.reason})")
    with tempfile.TemporaryDirectory() as folder, deployment(1) as driver:
        plain = Plain(Path(folder), verdict.accelerator)
        samples: dict[str, list[float]] = {"plain Debian": [], "nxc_testing": []}
        for _ in range(options.rounds):
            samples["plain Debian"].append(plain())
            samples["nxc_testing"].append(ours(driver))
            print("  ".join(f"{name} {took[-1]:.2f} s" for name, took in samples.items()))
    medians = {name: statistics.median(took) for name, took in samples.items()}
    for name, median in medians.items():
        print(f"first command, {name}: median {median:.2f} s, of {len(samples[name])}")
    print(f"ratio: {medians['plain Debian'] / medians['nxc_testing']:.1f}")
    for count in options.machines:
        with deployment(count) as driver:
            print(f"start_all of {count} and a command in each: {ours(driver):.2f} s")


if __name__ == "__main__":
    main()
