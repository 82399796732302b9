"""What a backend is: the protocols between the machines above and the engines below.

A backend is one module. Its `Backend` turns a `Plan` into a `Deployment`; the deployment owns
`Node`s and everything that belongs to no single one. A node is a handful of methods; what else
it can do it says by satisfying more of the small protocols below, from which the table of
capabilities is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from nxc_testing.composition import Plan, Segment
    from nxc_testing.runs.journal import Record
    from nxc_testing.session import Session
    from nxc_testing.waiting import Deadline


SHARED_AT = "/tmp/shared"
"""Where machines have the directory that they share with the host, as in NixOS tests."""

HELD_AT = "/etc/nxc/shared"
"""The same directory, where no system mounts or cleans anything."""


class Boot:
    """One life of a machine, from power-on to its end; shared by all who must notice the end.

    :ivar number: 1 for the first boot of a node, one more for each later one.
    :ivar ended: set once the machine is off; wait on it.
    """

    def __init__(self, number: int):
        self.number = number
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._reason = ""
        self._callbacks: list[Callable[[], None]] = []

    @property
    def reason(self) -> str:
        """How it ended, in words; empty while it lives."""
        return self._reason

    def end(self, reason: str) -> None:
        """Tell everybody that the machine is off; called by the backend, the first call counts.

        :param reason: how it ended, for the error message.
        """
        with self._lock:
            if self.ended.is_set():
                return
            self._reason = reason
            self.ended.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call something once when the machine is off; at once if it is off already."""
        with self._lock:
            if not self.ended.is_set():
                self._callbacks.append(callback)
                return
        callback()


class Decoder(Protocol):
    """Takes a stream's own wrapping off its bytes; holds what is incomplete."""

    def feed(self, data: bytes) -> bytes:
        """The payload in what came, with what was left over before."""


@dataclass(slots=True)
class Channel:
    """A duplex byte stream whose far end is a root shell that reads its script from it.

    The far end may be any POSIX shell with bash beside it. It owns its descriptors: whoever
    opened the channel closes it.

    :ivar reader: descriptor to read from.
    :ivar writer: descriptor to write to; may be the same.
    :ivar close: releases both and whatever stands behind them; may be called twice.
    :ivar decoder: unwraps what is read, where the engine wraps it.
    :ivar why: says why the stream has ended, where that is not the far end's doing; else empty.
    """

    reader: int
    writer: int
    close: Callable[[], None]
    decoder: Decoder | None = None
    why: Callable[[], str] = str


@dataclass(frozen=True, slots=True)
class Access:
    """How a person reaches a machine that was kept.

    :ivar machine: the machine's name.
    :ivar command: a command line for a shell on it.
    """

    machine: str
    command: str


class Node(Protocol):
    """One machine, as its backend sees it. All methods may be called from any thread."""

    @property
    def name(self) -> str:
        """The host's name."""

    @property
    def addresses(self) -> Mapping[str, str]:
        """The IP address in each network, by the network's name."""

    @property
    def boot(self) -> Boot | None:
        """The present boot, or the last one if the machine is off; None before the first."""

    def start(self) -> None:
        """Power on; returns when the machine runs, not when it has booted.

        :raise DeploymentError: if it does not start.
        """

    def stop(self, timeout: float) -> bool:
        """Ask the machine to shut down in order, and wait.

        :param timeout: seconds to wait.
        :return: whether it is off.
        """

    def kill(self) -> None:
        """Cut the power. When it returns the machine is off."""

    def open_channel(self) -> Channel:
        """A new root shell, beside those already open.

        :raise MachineDied: if the machine is off.
        :raise ConnectionLost: if it cannot be reached.
        """

    def watch_console(self, sink: Callable[[bytes], None]) -> None:
        """Send what the console prints, from the first byte of each boot, to a function.

        Called at most once, before the first start; the function is called from any thread.
        """


@runtime_checkable
class OwnSystem(Protocol):
    """A node that is a system: its init, files, journal, names and network are not the host's."""

    @property
    def own_system(self) -> bool:
        """True: to declare it is all there is to do."""


@runtime_checkable
class OwnKernel(Protocol):
    """A node whose kernel is not the host's: it may load modules, serve NFS, and panic."""

    @property
    def own_kernel(self) -> bool:
        """True: to declare it is all there is to do."""


@runtime_checkable
class Reboots(Protocol):
    """A node that can restart in order, and be seen to come back."""

    def reboot(self, timeout: float) -> None:
        """Restart in order; returns when the new boot runs.

        :raise DeploymentError: if it is not back in time (seconds).
        """

    def set_allow_reboot(self, allow: bool) -> None:
        """Whether a reboot that the machine asks for itself starts it again."""

    @property
    def reboots_by_itself(self) -> bool:
        """Whether the machine is off only because it is about to start again."""


@runtime_checkable
class Freezes(Protocol):
    """A node whose processes can all be stopped and continued from outside."""

    def freeze(self) -> None:
        """Stop every process; what is open stays open."""

    def thaw(self) -> None:
        """Continue."""


@runtime_checkable
class Links(Protocol):
    """A node whose network links can be cut from outside."""

    def set_link(self, up: bool) -> None:
        """Cut all its composition networks, or restore them; connections survive."""


@runtime_checkable
class ForwardsPorts(Protocol):
    """A node whose ports can be reached from the host."""

    def forward_port(self, host_port: int, guest_port: int) -> None:
        """Let 127.0.0.1:host_port on the host lead to guest_port in the machine."""


@runtime_checkable
class SharesDirectory(Protocol):
    """A node that shares a directory with the host, and with all others of its deployment.

    The machine finds it mounted at `HELD_AT`, and at `SHARED_AT` unless its system hides it there;
    what stands above sees to that before the first command of a boot.
    """

    @property
    def shared_dir(self) -> Path:
        """The host's path of it; it goes with the deployment.

        :raise Unsupported: if this process cannot reach it.
        """


class QemuMonitor(Protocol):
    """The monitor of a QEMU; its methods raise `DeploymentError` if it is gone or refuses."""

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401 (whatever JSON holds)
        """Run a QMP command, and give what it returns."""

    def human(self, line: str) -> str:
        """Run a command of the monitor for humans, and give what it prints."""

    def wait_for_event(
        self,
        accept: Callable[[dict[str, Any]], bool],
        deadline: Deadline,
        ended: Callable[[], bool],
    ) -> dict[str, Any] | None:
        """Wait for a QMP event behind the last one that was waited for.

        :param ended: true ends the wait.
        :return: the event; None if it has not come.
        """

    def wake(self) -> None:
        """Let those who wait look at what ends their wait."""


@runtime_checkable
class HasMonitor(Protocol):
    """A node that is a QEMU of this host."""

    def monitor(self) -> QemuMonitor:
        """The monitor of the present boot.

        :raise MachineDied: if the machine is off.
        """

    def process_id(self) -> int:
        """The number of QEMU's process.

        :raise MachineDied: if the machine is off.
        """


@runtime_checkable
class TakesConsoleInput(Protocol):
    """A node whose console can be typed into."""

    def type_on_console(self, data: bytes) -> None:
        """Type; it is read by whatever reads the console in the machine.

        :raise MachineDied: if the machine is off.
        """


@runtime_checkable
class HasTerminals(Protocol):
    """A node whose system has virtual terminals, /dev/tty1 and so on."""

    @property
    def has_terminals(self) -> bool:
        """True: to declare it is all there is to do."""


class Deployment(Protocol):
    """Machines that belong together, and all that belongs to no single one of them."""

    @property
    def nodes(self) -> Sequence[Node]:
        """In the order of the plan."""

    def access(self) -> Sequence[Access]:
        """How a person reaches each machine by hand."""

    def close(self) -> None:
        """Release everything, also after a failure in the middle; may be called twice.

        :raise DeploymentError: if something could not be released; the rest is.
        """


@runtime_checkable
class OffersSegments(Protocol):
    """A deployment whose networks machines of another kind can be in."""

    def segments(self) -> Mapping[str, Segment]:
        """Its networks, by their names in the composition.

        :raise DeploymentError: if this host has no part in them.
        """


@runtime_checkable
class JoinsSegments(Protocol):
    """A backend that heeds a plan's segments."""

    @property
    def joins_segments(self) -> bool:
        """True: to declare it is all there is to do."""


class Backend(Protocol):
    """A kind of machine. Registered in the entry-point group `nxc_testing.backends`."""

    name: str

    def unavailable(self) -> str | None:
        """Why this host cannot use the backend and what to install; None if it can."""

    def node_type(self) -> type[Node]:
        """What its machines are made of: the protocols it satisfies say what they can do."""

    def deploy(self, plan: Plan, session: Session) -> Deployment:
        """Make networks, volumes and nodes; nothing is started yet.

        What was made is registered with the session before it exists, so that it can be
        removed after a crash; on an error nothing is left.

        :raise DeploymentError: if it cannot be done.
        """


@runtime_checkable
class Explains(Protocol):
    """A backend that does its work in one of several ways, depending on the host."""

    def remarks(self) -> Sequence[str]:
        """How it would do it here, and why; for a host that can use it."""


@runtime_checkable
class MayBeSlow(Protocol):
    """A backend that some hosts can use, but not at the speed that others do."""

    def slow(self) -> str | None:
        """Why its machines are slow on this host; None if they are not."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run has in a backend, as the backend finds it by the labels that are on it.

    :ivar run: the run's id.
    :ivar backend: the backend's name.
    :ivar owner: the text of its owner's label.
    :ivar kept: whether it is labelled as kept.
    :ivar composition: what it is for.
    :ivar machines: the machines' names.
    :ivar things: everything that there is, in words, like `container nxc-1a2b3c4d-node1`.
    :ivar made: when, in seconds since the epoch; 0 if unknown.
    """

    run: str
    backend: str
    owner: str
    kept: bool = False
    composition: str = ""
    machines: Sequence[str] = ()
    things: Sequence[str] = ()
    made: float = 0.0


@runtime_checkable
class Reaps(Protocol):
    """A backend whose runs leave something behind when they are killed, and that can release it.

    Both methods may be called in another process than the run's, also when its directory is lost.

    :ivar settle: seconds for which something may still turn up after a run was killed, because an
        engine was about to make it.
    """

    name: str
    settle: float

    def traces(self) -> Sequence[Trace]:
        """What runs have in this backend, living and dead; one or more for each run.

        :raise BackendUnavailable: if that cannot be known.
        """

    def reap(self, run: str, records: Sequence[Record]) -> list[str]:
        """Release everything of a run: what bears its labels, and what it has noted.

        May be called again, by several processes at once, and while an engine still makes what
        the run had asked for.

        :param records: what the run noted with `Session.record` and has not released.
        :return: what is gone now, in words.
        :raise NxcError: if something is left.
        """
