"""What happens to machines whose engine cannot be reached for a while, or ever again."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_lab import docker
from machine_lab import Lab, boot, succeed, until

from nxc_testing.backends.docker import watch
from nxc_testing.backends.docker.engine import DEFAULT_SOCKET


class Line:
    """A socket that leads to the engine, and can be cut."""

    def __init__(self, path: Path):
        self._path = path
        self._ends: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(50)
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.socket(socket.AF_UNIX)
                there.connect(DEFAULT_SOCKET)
                self._ends += [here, there]
                threading.Thread(target=_relay, args=(here, there), daemon=True).start()

    def cut(self) -> None:
        self._path.unlink()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _relay(here: socket.socket, there: socket.socket) -> None:
    other = {here: there, there: here}
    with here, there, selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        for end in other:
            selector.register(end, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                if data := key.fileobj.recv(1 << 16):
                    other[key.fileobj].sendall(data)
                else:
                    selector.unregister(key.fileobj)
                    other[key.fileobj].shutdown(socket.SHUT_WR)


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    path = tmp_path / "engine.sock"
    line = Line(path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    yield line
    with contextlib.suppress(FileNotFoundError):
        line.cut()


def engine(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as direct:
        direct.delenv("DOCKER_HOST")
        return docker(*arguments)


def test_a_death_while_the_engine_was_out_of_reach_is_told_afterwards(
    line: Line, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = lab.machine()
    boot(node)
    line.cut()
    engine("kill", node.container_name, monkeypatch=monkeypatch)
    line.open()
    assert node.boot is not None
    assert node.boot.ended.wait(10)
    assert node.boot.reason == "killed, exit code 137"


def test_machines_live_on_when_the_engine_was_out_of_reach(line: Line, lab: Lab) -> None:
    node = lab.machine()
    boot(node)
    line.cut()
    line.open()
    until(lambda: succeed(node, "echo alive") == "alive")
    assert node.boot is not None
    assert not node.boot.ended.wait(1)
    node.kill()


def test_an_engine_that_is_gone_ends_its_machines(
    line: Line, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PATIENCE", 0.5)
    node = lab.machine()
    boot(node)
    line.cut()
    assert node.boot is not None
    assert node.boot.ended.wait(10)
    assert "the Docker engine is gone" in node.boot.reason
    line.open()
