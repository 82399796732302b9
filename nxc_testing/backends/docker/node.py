"""One machine: a container, its power, its shells, its console and its links."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from docker.errors import APIError

from nxc_testing.backends.base import Boot, Channel
from nxc_testing.backends.docker.engine import CONFLICT, NOT_FOUND, Engine, explanation, status
from nxc_testing.backends.docker.init import REBOOT_SIGNAL, STOP_SIGNAL
from nxc_testing.backends.docker.streams import Console, open_shell
from nxc_testing.backends.host.forward import Relays
from nxc_testing.backends.host.power import PoweredNode, Request
from nxc_testing.errors import (
    ConnectionLost,
    DeploymentError,
    MachineDied,
    Unsupported,
)

if TYPE_CHECKING:
    from nxc_testing.backends.docker.links import LinkSwitch
    from nxc_testing.backends.docker.watch import Death

SIGNALS = {
    Request.POWEROFF: STOP_SIGNAL,
    Request.REBOOT: REBOOT_SIGNAL,
    Request.KILL: "SIGKILL",
}
FREEZE_ATTEMPTS = 3
NEWS_TIMEOUT = 2.0
LAST_WORDS = 0.3
"""Seconds that an ended machine's console may take to be read to its end."""


class DockerNode(PoweredNode):
    """A machine that is a container.

    :param container: its id in the engine.
    :param container_name: its name there.
    :param name: the host's name.
    :param addresses: by network; the primary one first.
    :param shared: the shared directory, on the engine's host.
    """

    def __init__(
        self,
        engine: Engine,
        container: str,
        container_name: str,
        *,
        name: str,
        addresses: Mapping[str, str],
        links: LinkSwitch,
        shared: Path,
    ):
        super().__init__(name, addresses)
        self._engine, self._links, self._shared_dir = engine, links, shared
        self.container, self.container_name = container, container_name
        self._console: Console | None = None
        self._relays = Relays(name)
        self._cut = False
        self._ends: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<DockerNode {self._name!r} {self.container_name}>"

    # Power

    def _switch_on(self, boot: Boot) -> None:
        if self._watched:
            with self._engine.api(f"{self._name}: the console") as api:
                self._console = Console(api, self.container, self._sink)
        self._ends = frozenset()
        with self._engine.api(f"{self._name} does not start") as api:
            api.start(self.container)
        if self._cut:
            self._switch_links()

    def _request(self, request: Request) -> None:
        signal = SIGNALS[request]
        with self._engine.api(f"{self._name}: {signal}") as api:
            try:
                api.kill(self.container, signal=signal)
            except APIError as error:
                # It is not running any more: its end is being told.
                if status(error) != CONFLICT:
                    raise

    # Told by the deployment's watch

    def on_death(self, death: Death) -> None:
        """The container has ended."""
        boot = self._running
        if boot is None:
            return
        if self._console:
            self._console.drained.wait(LAST_WORDS)
        self._ended(boot, death.reason, wants_reboot=death.reboot)

    def on_lost(self, reason: str) -> None:
        """Nothing can be known of the container any more."""
        if boot := self._running:
            boot.end(reason)

    @property
    def shared_dir(self) -> Path:
        """The directory that all machines share, where the engine keeps it.

        :raise Unsupported: if that is on another host, or only root may look there.
        """
        if not os.access(self._shared_dir, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            raise Unsupported(
                self._name,
                "shared_dir",
                "docker",
                f"the engine keeps it at {self._shared_dir}, where this process may not write: run "
                "as root on the engine's host, or use copy_from_host() and copy_from_machine()",
            )
        return self._shared_dir

    # Shells

    def open_channel(self) -> Channel:
        """A new root shell, beside those already open.

        :raise MachineDied: if the machine is off.
        :raise ConnectionLost: if the engine does not give one; a frozen machine has none.
        """
        with self._power:  # A start that is under way comes first.
            boot = self._require_boot()
        try:
            with self._engine.api(f"{self._name}: a shell") as api:
                return open_shell(api, self.container, self._name)
        except DeploymentError as error:
            # It may have ended just now, and the news is on its way.
            if _is_off(error.__cause__) and boot.ended.wait(NEWS_TIMEOUT):
                raise MachineDied(self._name, boot.reason) from error
            raise ConnectionLost(str(error)) from error

    # Faults

    def freeze(self) -> None:
        """Stop every process; connections and shells stay open."""
        self._set_frozen(True)

    def thaw(self) -> None:
        """Continue."""
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        self._require_boot()
        doing = "freezing" if frozen else "thawing"
        with self._engine.api(f"{self._name}: {doing}") as api:
            for attempt in range(FREEZE_ATTEMPTS):
                try:
                    (api.pause if frozen else api.unpause)(self.container)
                except APIError:
                    if api.inspect_container(self.container)["State"]["Paused"] == frozen:
                        return
                    # runc gives up on a machine that forks faster than it freezes.
                    if attempt == FREEZE_ATTEMPTS - 1:
                        raise
                else:
                    return

    def set_link(self, up: bool) -> None:
        """Cut all its networks, or restore them. Shells and connections survive.

        It can be called while the machine is off, and holds from one boot to the next; at a
        start the networks are there for a moment before they are cut.

        :raise DeploymentError: if it cannot be done.
        """
        with self._power:
            self._cut = not up
            if self._running:
                self._switch_links()

    def _switch_links(self) -> None:
        if not self._ends:
            with self._engine.api(f"{self._name}: its links") as api:
                state = api.inspect_container(self.container)["NetworkSettings"]["Networks"]
            addresses = [network["MacAddress"] for network in state.values()]
            ends = self._links.ends(self.container, addresses)
            if len(ends) != len(self._addresses):
                raise DeploymentError(
                    f"{self._name}: {len(ends)} of its {len(self._addresses)} network devices "
                    "were found: has it changed their hardware addresses?"
                )
            self._ends = ends
        self._links.switch(self._ends, not self._cut)

    # Ports

    def published_ports(self) -> Mapping[int, int]:
        """The host's ports on 127.0.0.1 by the machine's, of those that its role publishes.

        :raise MachineDied: if it is off: a free port is given at each start.
        """
        self._require_boot()
        with self._engine.api(f"{self._name}: its ports") as api:
            ports = api.inspect_container(self.container)["NetworkSettings"]["Ports"]
        return {
            int(guest.partition("/")[0]): int(bound[0]["HostPort"])
            for guest, bound in ports.items()
            if bound
        }

    def forward_port(self, host_port: int, guest_port: int) -> None:
        """Let 127.0.0.1:host_port on the host lead to guest_port in the machine.

        It goes by the machine's first network, and so is cut with it.

        :raise Unsupported: if the engine runs on another host.
        :raise DeploymentError: if the host's port is taken.
        """
        if not self._engine.info.local:
            raise Unsupported(
                self._name, "forward_port", "docker", "the engine runs on another host"
            )
        self._relays.add(host_port, (next(iter(self._addresses.values())), guest_port))

    def release(self) -> None:
        """Let go of everything but the container; whoever waits for the machine is told."""
        self._released = True
        self._relays.close()
        self.on_lost("its deployment was closed")
        if self._console:
            self._console.close()


def _is_off(error: BaseException | None) -> bool:
    """Whether the engine refused something because the container does not run."""
    return (
        isinstance(error, APIError)
        and status(error) in (CONFLICT, NOT_FOUND)
        and "paused" not in explanation(error)
    )
