"""Cuts a machine's network links at the host's end of them, where it notices only the cut.

A container's network device is one end of a veth pair; the other end is a port of the bridge.
With that end down the machine's device has no carrier, as with a cable pulled out: addresses,
routes and connections stay, and packets are lost. A device goes down and up by one bit of
/sys/class/net/DEVICE/flags, which needs no tool. Root does it itself; anyone else, or root in a
container, through a small container that sees the host's /sys.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from docker.types import Mount

from nxc_testing.backends.docker.engine import Engine
from nxc_testing.errors import DeploymentError

# Its own devices as a machine sees them: the index of the other end, and the hardware address.
SHOW_ENDS = """
for device in /sys/class/net/*; do
    read -r index <"$device/iflink" && read -r mac <"$device/address" && echo "$index $mac"
done
"""

# $1 a sysfs, $2 1 for up and 0 for down, $3 bridges, $4 indexes. Prints what it switched.
SWITCH = """
for bridge in $3; do
    for port in "$1/class/net/$bridge/brif"/*; do
        device=$1/class/net/${port##*/}
        read -r index <"$device/ifindex" || continue
        case " $4 " in *" $index "*) ;; *) continue ;; esac
        read -r flags <"$device/flags"
        echo $((flags & ~1 | $2)) >"$device/flags" && echo "$index"
    done
done
"""

HOST_SYS = "/host/sys"
TIMEOUT = 30.0


class LinkSwitch:
    """Switches links of one deployment's machines.

    :param bridges: the host's network devices that machines' links end at.
    :param helper: makes what `make_helper` does; called at most once, where it is needed.
    :param direct: whether this process does it by itself where it can.
    """

    def __init__(
        self,
        engine: Engine,
        bridges: Sequence[str],
        helper: Callable[[], str],
        direct: bool = True,
    ):
        self._engine, self._bridges = engine, bridges
        self._make_helper = helper
        self._direct = direct and engine.info.local and not os.geteuid() and _sees(bridges)
        self._helper = ""
        self._lock = threading.Lock()

    def ends(self, container: str, addresses: Iterable[str]) -> frozenset[str]:
        """The host's ends of a running machine's links; new ones at each boot.

        :param addresses: the hardware addresses that the engine gave the machine.
        :return: their indexes among the host's network devices.
        """
        shown = self._run(container, ["/bin/sh", "-c", SHOW_ENDS])
        pairs = [line.split() for line in shown.splitlines()]
        wanted = {address.lower() for address in addresses}
        return frozenset(index for index, address in pairs if address in wanted)

    def switch(self, ends: frozenset[str], up: bool) -> None:
        """Put links up or down.

        :raise DeploymentError: if that cannot be done for one of them.
        """
        arguments = ("1" if up else "0", " ".join(self._bridges), " ".join(ends))
        if self._direct:
            done = _run_here(["/bin/sh", "-c", SWITCH, "links", "/sys", *arguments])
        else:
            command = ["/bin/sh", "-c", SWITCH, "links", HOST_SYS, *arguments]
            done = self._run(self._start_helper(), command)
        if set(done.split()) != ends:
            raise DeploymentError(
                f"{len(ends)} links were to be put {'up' if up else 'down'}, and the host's "
                f"network devices {done.split()} were: is the Docker engine in another network "
                "namespace of this host?"
            )

    def _start_helper(self) -> str:
        with self._lock:
            if not self._helper:
                self._helper = self._make_helper()
            return self._helper

    def _run(self, container: str, command: list[str]) -> str:
        with self._engine.api("switching links") as api:
            made = api.exec_create(container, command, user="root")
            return bytes(api.exec_start(made["Id"])).decode()


def make_helper(engine: Engine, image: str, name: str, labels: Mapping[str, str]) -> str:
    """Start a container that sees the host's /sys and may change network devices there.

    :param image: any that has a shell.
    :return: its id.
    """
    with engine.api("the container that switches links") as api:
        made = api.create_container(
            image,
            name=name,
            entrypoint=["/bin/sh", "-c", "while :; do sleep 3600; done"],
            command=[],
            labels=dict(labels),
            host_config=api.create_host_config(
                network_mode="none",
                userns_mode="host",
                cap_drop=["ALL"],
                cap_add=["NET_ADMIN"],
                mounts=[Mount(target=HOST_SYS, source="/sys", type="bind")],
                security_opt=["apparmor=unconfined"] if engine.info.apparmor else [],
            ),
        )
        api.start(made["Id"])
        return str(made["Id"])


def _sees(bridges: Sequence[str]) -> bool:
    return all(Path(f"/sys/class/net/{bridge}/brif").is_dir() for bridge in bridges)


def _run_here(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        raise DeploymentError(f"switching links: {done.stderr.strip()}")
    return done.stdout
