"""The command line of a machine's QEMU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from nxc_testing.images.vm import VmImage

PROGRAM = "qemu-system-x86_64"

MEMORY = 1 << 30
"""Bytes of a machine whose role names none."""

TRANSLATION_CACHE = 64
"""MiB of translated code that an emulated machine keeps; QEMU's own default is 1 GiB."""

SHELLS = 4
"""How many shells a machine offers at once."""

QUIET = (
    # Panics, oopses and the like are printed; and each ends the machine.
    *("console=ttyS0", "quiet", "panic=1", "oops=panic", "sysctl.vm.panic_on_oom=1"),
    # Devices are called eth0, eth1 and so on, in the order of the networks.
    "net.ifnames=0",
    # What the kernel tests, measures or hides at each boot, to nobody's use here.
    *("mitigations=off", "nokaslr", "cryptomgr.notests", "no_timer_check", "tsc=reliable"),
    # Memory is not cleared twice, and not by 2 MiB where a program asks for little.
    *("init_on_alloc=0", "transparent_hugepage=madvise"),
    *("random.trust_cpu=on", "rcupdate.rcu_expedited=1", "audit=0"),
    # Its messages are not cut to a terminal's width or coloured.
    *("systemd.log_color=0", "TERM=dumb"),
)
"""The kernel's parameters; those of a role come behind them."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine is made of.

    :ivar uuid: the machine's, as its firmware tells it.
    :ivar initrd: the image's, with the machine's own behind it.
    :ivar root: an overlay of the image's disk, in qcow2 format.
    :ivar disks: raw images by their names in the machine, `vdb` and so on.
    :ivar volumes: the sockets of virtiofsd by their tags: of volumes, and the shared directory.
    :ivar networks: the machine's addresses in its networks, in order.
    :ivar memory: bytes.
    """

    name: str
    uuid: str
    image: VmImage
    initrd: Path
    root: Path
    accelerator: str
    networks: Sequence[IPv4Address] = ()
    disks: Mapping[str, Path] = field(default_factory=dict)
    volumes: Mapping[str, Path] = field(default_factory=dict)
    memory: int = MEMORY
    cpus: int = 1
    parameters: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The descriptors that QEMU inherits: listening sockets, and connections to the switch.

    :ivar ports: of the serial ports: the one for orders, and those of shells.
    :ivar links: in the order of the networks.
    """

    monitor: int
    console: int
    ports: Sequence[int]
    links: Sequence[int]

    @property
    def all(self) -> tuple[int, ...]:
        """Each of them."""
        return (self.monitor, self.console, *self.ports, *self.links)


def accelerator_options(accelerator: str) -> list[str]:
    """How the processor is made.

    :param accelerator: `kvm` or `tcg`.
    """
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", f"tcg,thread=multi,tb-size={TRANSLATION_CACHE}", "-cpu", "qemu64"]


def command(hardware: Hardware, descriptors: Descriptors, log: Path) -> list[str]:
    """What starts a machine that waits for QMP's `cont`.

    :param log: a file that the console is written to as well.
    """
    return [
        PROGRAM,
        *("-name", f"guest={hardware.name}", "-uuid", hardware.uuid),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S"),
        *("-machine", _machine(hardware)),
        *accelerator_options(hardware.accelerator),
        *("-m", f"{hardware.memory >> 20}M", "-smp", str(hardware.cpus)),
        *("-kernel", str(hardware.image.kernel), "-initrd", str(hardware.initrd)),
        *("-append", " ".join((*QUIET, *hardware.parameters))),
        *_serial(descriptors, log),
        *_disks(hardware),
        *_volumes(hardware),
        *_links(hardware, descriptors),
        *("-device", "virtio-rng-pci"),
    ]


def hardware_address(address: IPv4Address) -> str:
    """Locally administered, and the same at every boot: others remember it for a while."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x4E, *address.packed))


def _machine(hardware: Hardware) -> str:
    # virtiofsd sees the machine's memory.
    return "q35,memory-backend=memory" if hardware.volumes else "q35"


def _serial(descriptors: Descriptors, log: Path) -> list[str]:
    def listening(name: str, descriptor: int, more: str = "") -> tuple[str, str]:
        return ("-chardev", f"socket,id={name},fd={descriptor},server=on,wait=off{more}")

    options = [
        *listening("monitor", descriptors.monitor),
        *("-mon", "chardev=monitor,mode=control"),
        *listening("console", descriptors.console, f",logfile={_quoted(log)},logappend=on"),
        *("-serial", "chardev:console"),
        *("-device", f"virtio-serial-pci,id=ports,max_ports={len(descriptors.ports) + 1}"),
    ]
    for number, descriptor in enumerate(descriptors.ports, 1):
        name = port_name(number)
        options += [*listening(name, descriptor), "-device", port_device(number)]
    return options


def _disks(hardware: Hardware) -> list[str]:
    # QEMU's "unsafe" hands the host's kernel all that the machine has synced, and does not wait
    # until that is on a disk: it outlives QEMU's end, if not the host's.
    files = [("vda", hardware.root, "qcow2")]
    files += [(name, path, "raw") for name, path in sorted(hardware.disks.items())]
    options = []
    for name, path, form in files:
        drive = f"if=none,id={name},file={_quoted(path)},format={form},cache=unsafe,discard=unmap"
        options += ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}"]
    return options


def _volumes(hardware: Hardware) -> list[str]:
    if not hardware.volumes:
        return []
    size = f"{hardware.memory >> 20}M"
    options = ["-object", f"memory-backend-memfd,id=memory,size={size},share=on"]
    for tag, path in hardware.volumes.items():
        options += ["-chardev", f"socket,id={tag},path={_quoted(path)}"]
        options += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    return options


def _links(hardware: Hardware, descriptors: Descriptors) -> list[str]:
    options = []
    pairs = zip(hardware.networks, descriptors.links, strict=True)
    for number, (address, descriptor) in enumerate(pairs):
        name, mac = link_name(number), hardware_address(address)
        options += ["-netdev", f"socket,id={name},fd={descriptor}"]
        options += ["-device", f"virtio-net-pci,netdev={name},mac={mac},romfile="]
    return options


def port_name(number: int) -> str:
    """What QEMU and we call the host's end of a serial port.

    :param number: 1 for the first, which takes orders.
    """
    return f"port{number}"


def port_device(number: int) -> str:
    """The machine's end of a serial port, on the controller `ports`.

    In the machine it is found by its name.

    :param number: 1 for the first, which takes orders.
    """
    name, inside = port_name(number), "nxc.orders" if number == 1 else f"nxc.shell{number - 1}"
    return f"virtserialport,bus=ports.0,nr={number},chardev={name},id={name}-end,name={inside}"


def link_name(number: int) -> str:
    """What QEMU calls the link to a machine's network.

    :param number: 0 for the first.
    """
    return f"link{number}"


def _quoted(path: Path) -> str:
    """A path among the options of QEMU, where a comma ends it."""
    return str(path).replace(",", ",,")
