"""The engine: whether it can be used, what it is like, and clients for any thread."""

from __future__ import annotations

import os
import queue
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import docker
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from nxc_testing.errors import BackendUnavailable, DeploymentError

DEFAULT_SOCKET = "/var/run/docker.sock"
OLDEST_API = "1.41"
"""Docker 20.10: the first with a cgroup namespace for each container."""

REQUEST_TIMEOUT = 300
"""Seconds; an engine on a busy host takes its time to make a container."""

CONFLICT, NOT_FOUND = 409, 404


def engine_host() -> str:
    """The engine's address, as Docker's own client takes it from the environment."""
    return os.environ.get("DOCKER_HOST") or f"unix://{DEFAULT_SOCKET}"


def obstacle() -> str | None:
    """Why the engine cannot be used, and what to do; None if it can."""
    host = engine_host()
    plain = host.startswith("tcp://") and not os.environ.get("DOCKER_TLS_VERIFY")
    if not plain and not host.startswith("unix://"):
        return (
            f"DOCKER_HOST={host}: machines need a plain socket to the engine: forward it, like "
            f"`ssh -nNT -L /tmp/engine.sock:{DEFAULT_SOCKET} HOST`, "
            "and set DOCKER_HOST=unix:///tmp/engine.sock"
        )
    try:
        engine = Engine()
    except BackendUnavailable as error:
        return str(error)
    engine.close()
    return None


def socket_problem(host: str) -> str | None:
    """What keeps this user from an engine's Unix socket; None if nothing does, or it has none."""
    if not host.startswith("unix://"):
        return None
    path = host.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except PermissionError:
            return (
                f"this user may not use {path}: `sudo usermod -aG docker $USER` and log in again "
                "(who may use it is as good as root on this host), or run as root"
            )
        except FileNotFoundError:
            return (
                f"there is no Docker engine at {path}: install and start one "
                "(Debian: `apt-get install docker.io`), or set DOCKER_HOST"
            )
        except OSError as error:
            return f"no Docker engine answers at {path} ({error.strerror}): is dockerd running?"
    return None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the engine says of itself and its host.

    :ivar cgroup: the host's cgroup version, 1 or 2.
    :ivar apparmor: whether containers get an AppArmor profile.
    :ivar selinux: whether containers get an SELinux label.
    :ivar local: whether it is reached by a Unix socket, and so runs on this host.
    :ivar memory: the host's memory in bytes.
    :ivar clock: its time at this moment, in whole seconds since the epoch.
    """

    version: str
    cgroup: int
    apparmor: bool
    selinux: bool
    local: bool
    memory: int
    clock: int


class Engine:
    """Gives out clients, one for each use at a time: a client is never used by two threads.

    docker-py promises nothing about threads, and its sessions come from requests, which does
    not either. Idle clients are kept, with their connections.

    :param host: the engine's address; by default the one that the environment names.
    :raise BackendUnavailable: if no usable engine answers.
    """

    def __init__(self, host: str | None = None) -> None:
        self.host = host or engine_host()
        if problem := socket_problem(self.host):
            raise BackendUnavailable(problem)
        self._idle: queue.LifoQueue[docker.DockerClient] = queue.LifoQueue()
        self._closed = False
        # Not "auto": if nobody answers, docker-py leaves a socket open where it asks by itself.
        self._version = OLDEST_API
        try:
            with closing(self.connect()) as first:
                self._version = first.version(api_version=False)["ApiVersion"]
            client = self.connect()
            self._idle.put(client)
            self.info = _info(client.info(), self.host)
            if _numbers(self._version) < _numbers(OLDEST_API):
                raise BackendUnavailable(
                    f"the Docker engine at {self.host} is {self.info.version}; "
                    "20.10 is the oldest that can be used"
                )
        except (DockerException, RequestException) as error:
            self.close()
            raise BackendUnavailable(
                f"the Docker engine at {self.host} does not answer: {error}"
            ) from error
        except BackendUnavailable:
            self.close()
            raise

    def connect(self) -> docker.DockerClient:
        """A client of one's own; to be closed by whoever asked for it."""
        return docker.DockerClient.from_env(
            version=self._version,
            timeout=REQUEST_TIMEOUT,
            environment={**os.environ, "DOCKER_HOST": self.host},
        )

    @contextmanager
    def client(self, doing: str) -> Iterator[docker.DockerClient]:
        """A client for this thread, until the end of the block.

        :param doing: what it is for, for the error message.
        :raise DeploymentError: for what goes wrong in the block with the engine.
        """
        client: docker.DockerClient | None = None
        try:
            client = self._take()
            yield client
        except (DockerException, RequestException) as error:
            raise DeploymentError(f"{doing}: {explanation(error)}") from error
        finally:
            if client is not None:
                self._idle.put(client)
                if self._closed:
                    self._close_idle()

    def _take(self) -> docker.DockerClient:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self.connect()

    @contextmanager
    def api(self, doing: str) -> Iterator[docker.APIClient]:
        """The same, with the engine's own calls."""
        with self.client(doing) as client:
            yield client.api

    def close(self) -> None:
        """Keep no connection. It can still be used, and connects for each use then."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return


def explanation(error: Exception) -> str:
    """What the engine says of an error, without the SDK's own words around it."""
    if isinstance(error, APIError) and error.explanation:
        return str(error.explanation)
    return str(error)


def status(error: APIError) -> int:
    """The HTTP status of the engine's answer; 0 if there is none."""
    return error.status_code or 0


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _info(raw: dict[str, Any], host: str) -> EngineInfo:
    if raw["OSType"] != "linux":
        raise BackendUnavailable(f"the Docker engine runs {raw['OSType']} containers, not Linux")
    options = {option.partition(",")[0] for option in raw.get("SecurityOptions") or ()}
    return EngineInfo(
        version=raw["ServerVersion"],
        cgroup=int(raw.get("CgroupVersion") or 1),
        apparmor="name=apparmor" in options,
        selinux="name=selinux" in options,
        local=host.startswith("unix://"),
        memory=raw["MemTotal"],
        clock=int(datetime.fromisoformat(raw["SystemTime"]).timestamp()),
    )
