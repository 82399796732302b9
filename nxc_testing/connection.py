"""A machine's shell through all its boots: opened when needed, replaced when lost, reported."""

from __future__ import annotations

import asyncio
import codecs
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from nxc_testing.backends.base import HELD_AT, SHARED_AT, Boot, Channel, Node
from nxc_testing.composition.model import ShellMode
from nxc_testing.console import Console
from nxc_testing.errors import (
    ConnectionLost,
    DeploymentError,
    InfraError,
    MachineDied,
    NxcError,
    ShellLost,
    tail,
)
from nxc_testing.events import (
    CommandFinished,
    CommandOutput,
    CommandStarted,
    Events,
    Logged,
    Stream,
)
from nxc_testing.shell import Result, Shell, prepare
from nxc_testing.waiting import Deadline, poll

BOOT_TIMEOUT = 300.0
DEATH_NOTICE = 1.0
KILLED = {128 + 9, 128 + 15}
HELD_NOTICE = 5.0

# Upstream's backdoor comes up with the machine's basic system; so a command may rely on that much.
# A first process of another kind may be on its way to be systemd, or never be.
# Where asking would keep it from booting, because it is emulated, it tells by itself.
_BOOTED = """
if [[ -p /run/nxc/gate ]]; then
  exec 3<>/run/nxc/gate
  [[ -e /run/nxc/booted ]] || read -r -t 8 -u 3
  [[ -e /run/nxc/booted ]] && read -r target </run/nxc/booted || exit 1
  [[ $target == basic ]] && exit
  exit 99
fi
read -r first </proc/1/comm
case $first in
systemd)
  set -- $(systemctl is-active emergency.target rescue.target basic.target)
  [[ $1 == active || $2 == active ]] && exit 99
  [[ $3 == active ]] ;;
sh | bash | dash | init) ! grep -qzE '(^|/)(init|systemd)$' /proc/1/cmdline ;;
esac
"""
_EMERGENCY = 99

# A system that mounts a /tmp of its own hides what the backend had mounted in it.
_SHARED = f"""
[[ ! -d {HELD_AT} || {SHARED_AT} -ef {HELD_AT} ]] ||
  {{ mkdir -p {SHARED_AT} && mount --bind {HELD_AT} {SHARED_AT}; }}
"""
_EVIDENCE = "systemctl list-jobs --no-pager --full 2>&1; systemctl --failed --no-pager --full 2>&1"


class Connection:
    """Runs commands on one node, whatever happens to its shell in between.

    :param node: the machine, already told to start by whoever asks for a command.
    :param mode: how commands run.
    :param console: its last lines go into the error when the machine dies.
    :ivar commands_run: how many commands the test itself ran.
    """

    def __init__(self, node: Node, events: Events, mode: ShellMode, console: Console):
        self.node, self.mode = node, mode
        self._events, self._console = events, console
        self._opening = threading.Lock()
        self._shell: Shell | None = None
        self._boot: Boot | None = None
        self._ids = itertools.count(1)
        self._reporters: dict[int, _Reporter] = {}
        self.commands_run = 0

    @property
    def open(self) -> bool:
        """Whether there is a shell that can take a command."""
        shell = self._shell
        return shell is not None and not shell.closed and self._boot is self.node.boot

    def connect(self) -> Shell:
        """The shell of the present boot, opened if need be, once the machine has booted so far.

        :raise MachineDied: if the machine is off, or ends before it has booted.
        :raise DeploymentError: if it does not boot in time.
        """
        return self._connect()[0]

    def _connect(self) -> tuple[Shell, Boot]:
        with self._opening:
            boot = self._present_boot()
            if self._shell is not None:
                if self._boot is boot and not self._shell.closed:
                    return self._shell, boot
                self._shell.close()
            channel = self._open_channel()
            self._shell = shell = Shell(
                self.node.name,
                channel,
                _Observer(self),
                lambda closed: self._why_lost(boot, closed, channel.why()),
                self._ids,
            )
            if self._boot is not boot:
                self._wait_booted(shell, boot)
                self._show_shared(shell)
                self._boot = boot
            return shell, boot

    def _open_channel(self) -> Channel:
        try:
            return self.node.open_channel()
        except MachineDied as error:
            # It died since it was looked at, and a backend does not know its console.
            console = self._console.text
            raise MachineDied(error.machine, error.reason, console=console) from None
        except ConnectionLost as error:
            raise ConnectionLost(f"{error}{tail('console', self._console.text)}") from error

    def close(self) -> None:
        """Close the shell and end what runs in it; the next command opens another."""
        # Without the lock: a shell that waits for its machine to boot must be closed too.
        if self._shell is not None:
            self._shell.close()

    def run(
        self,
        command: str,
        timeout: float | None,
        *,
        quiet: bool = False,
        stdin: Iterator[bytes] | None = None,
        sink: Callable[[bytes], None] | None = None,
        shown: bool | None = None,
    ) -> Result:
        """Run a command and report it.

        :param timeout: seconds, or None.
        :param quiet: leave it out of the event log: a wait's own looking.
        :param stdin: what it reads; /dev/null without it.
        :param sink: takes its stdout instead of the result.
        :param shown: whether its stdout is in the event log; by default where no sink takes it.
        :raise MachineDied: if the machine ended meanwhile.
        :raise ShellLost: if only its shell did; the next command gets a new one.
        """
        text = prepare(command, self.mode)
        shell, boot = self._connect()
        number = next(self._ids)
        if shown is None:
            shown = sink is None
        reporter = None if quiet else _Reporter(self._events, self.node.name, number, shown)
        if reporter is not None:
            self.commands_run += 1
            self._reporters[number] = reporter
            reporter.started(command, timeout)
        try:
            result = shell.run(text, timeout, identifier=number, stdin=stdin, sink=sink)
            if result.status in KILLED and not result.timed_out:
                self._confirm_alive(shell, boot)
        except BaseException as caught:
            error = self._explain(caught, command, shell)
            if reporter is not None:
                reporter.finished(None, str(error).split("\n", 1)[0] or type(error).__name__)
            raise error from None
        finally:
            self._reporters.pop(number, None)
        if reporter is not None:
            reporter.finished(result.status, "timed out" if result.timed_out else "")
        return result

    def _confirm_alive(self, shell: Shell, boot: Boot) -> None:
        """A machine that dies kills its commands, and some are quick enough to tell."""
        shell.ping(DEATH_NOTICE)
        if boot.ended.is_set():
            raise self._why_lost(boot, closed=False)

    def _explain(self, error: BaseException, command: str, shell: Shell) -> BaseException:
        doing = f"command `{command}`"
        if isinstance(error, MachineDied) and not error.doing:
            return MachineDied(error.machine, error.reason, doing=doing, console=error.console)
        if isinstance(error, ShellLost):
            in_part = "; it may have run in part" if shell.closed else ""
            return ShellLost(f"{error} during {doing}{in_part}")
        return error

    def _present_boot(self) -> Boot:
        boot = self.node.boot
        if boot is None:
            raise MachineDied(self.node.name, "it was never started")
        if boot.ended.is_set():
            raise MachineDied(self.node.name, boot.reason, console=self._console.text)
        return boot

    def _why_lost(self, boot: Boot, closed: bool, why: str = "") -> InfraError:
        if why and not boot.ended.is_set():
            return ShellLost(f"{self.node.name}: {why}")
        if boot.ended.is_set() or (not closed and self._has_died(boot)):
            return MachineDied(self.node.name, boot.reason, console=self._console.text)
        how = "closed" if closed else "killed"
        return ShellLost(f"{self.node.name}: the shell in the machine was {how}")

    def _has_died(self, boot: Boot) -> bool:
        """Whether the machine went with its shell: the news may be late, but it gives no other."""
        if not boot.ended.wait(DEATH_NOTICE):
            with suppress(NxcError):
                self.node.open_channel().close()
        return boot.ended.is_set()

    def _wait_booted(self, shell: Shell, boot: Boot) -> None:
        look = prepare(_BOOTED, ShellMode.NXC, booting=True)
        status = 0

        def booted(deadline: Deadline) -> bool:
            nonlocal status
            status = shell.run(look, deadline.look(10)).status
            return status in {0, _EMERGENCY}

        done = poll(booted, Deadline(BOOT_TIMEOUT), interrupted=boot.ended)
        if not done or status == _EMERGENCY:
            seen = shell.run(prepare(_EVIDENCE, ShellMode.NXC, booting=True), 10).stdout
            why = "is in emergency mode" if done else f"did not boot in {BOOT_TIMEOUT:.0f} s"
            raise DeploymentError(
                f"{self.node.name} {why}"
                + tail("systemd", seen.decode(errors="replace"))
                + tail("console", self._console.text)
            )

    def _show_shared(self, shell: Shell) -> None:
        # Only its type is asked: a directory may be there that this process cannot reach.
        if not hasattr(type(self.node), "shared_dir"):
            return
        result = shell.run(prepare(_SHARED, ShellMode.NXC, booting=True), BOOT_TIMEOUT)
        if result.status:
            why = result.stderr.decode(errors="replace").strip()
            self.say(f"{self.node.name}: {SHARED_AT} is not shared: {why}")

    # --- for the observer

    def reporter(self, number: int) -> _Reporter | None:
        """Who reports a command that runs; None for a quiet one."""
        return self._reporters.get(number)

    def late(self, number: int, data: bytes) -> None:
        """A daemon that a command left behind wrote to the stderr it got from it."""
        reporter = _Reporter(self._events, self.node.name, number, log_stdout=False)
        reporter.output(Stream.STDERR, data, late=True)

    def say(self, message: str) -> None:
        """Put a note on this machine into the event log."""
        self._events.emit(Logged(machine=self.node.name, message=message, level="warning"))


class _Observer:
    """Passes on what the shell sees, by command; lives on the background loop."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def output(self, command: int, stream: Stream, data: bytes, late: bool) -> None:
        if late:
            self._connection.late(command, data)
        elif reporter := self._connection.reporter(command):
            reporter.output(stream, data)

    def held(self, command: int) -> None:
        def still_held() -> None:
            if reporter := self._connection.reporter(command):
                self._connection.say(
                    f"`{reporter.command}` has ended, but a process that it left holds its stdout,"
                    " and so it is still waited for; redirect the output of background jobs"
                )

        asyncio.get_running_loop().call_later(HELD_NOTICE, still_held)


class _Reporter:
    """Makes events of one command."""

    def __init__(self, events: Events, machine: str, number: int, log_stdout: bool):
        self._events, self._machine, self._number = events, machine, number
        self._began = time.monotonic()
        self.command = ""
        decoder = codecs.getincrementaldecoder("utf-8")
        logged = Stream if log_stdout else [Stream.STDERR]
        self._decoders = {stream: decoder("replace") for stream in logged}

    def started(self, command: str, timeout: float | None) -> None:
        self.command = command
        self._events.emit(
            CommandStarted(machine=self._machine, id=self._number, command=command, timeout=timeout)
        )

    def output(self, stream: Stream, data: bytes, late: bool = False) -> None:
        if decoder := self._decoders.get(stream):
            self._printed(stream, decoder.decode(data), late)

    def _printed(self, stream: Stream, text: str, late: bool = False) -> None:
        if text:
            self._events.emit(
                CommandOutput(
                    machine=self._machine, id=self._number, stream=stream, text=text, late=late
                )
            )

    def finished(self, status: int | None, error: str) -> None:
        for stream, decoder in self._decoders.items():
            self._printed(stream, decoder.decode(b"", final=True))
        self._events.emit(
            CommandFinished(
                machine=self._machine,
                id=self._number,
                status=status,
                duration=time.monotonic() - self._began,
                error=error,
            )
        )
