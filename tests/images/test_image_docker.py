"""Images in a real Docker engine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import docker
import pytest
from docker.errors import ImageNotFound, NotFound
from docker.models.containers import Container

from nxc_testing.cli import main
from nxc_testing.images import Image
from nxc_testing.images.cache import META, Cache
from nxc_testing.images.docker import imported, into_docker, tag_of


@pytest.fixture(scope="module")
def engine(cache: Cache) -> Iterator[docker.DockerClient]:
    """The engine; what was imported from the tests' cache is removed from it at the end."""
    engine = docker.from_env()
    yield engine
    for image, *_ in list(imported(engine, cache)):
        engine.images.remove(str(image.id), force=True)
    engine.close()


@dataclass
class Imported:
    tag: str
    said: list[str]


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, small: Image) -> Imported:
    """An image that two runs brought into the engine at once."""
    said: list[str] = []

    def bring(_: int) -> str:
        client = docker.from_env()
        try:
            return into_docker(client, small, lambda _, text: said.append(text))
        finally:
            client.close()

    with ThreadPoolExecutor(2) as pool:
        tags = list(pool.map(bring, range(2)))
    assert tags == [tag_of(small)] * 2
    return Imported(tags[0], said)


@pytest.fixture(scope="module")
def machine(engine: docker.DockerClient, image: Imported) -> Iterator[Container]:
    """A container of base in which systemd has come up."""
    container = engine.containers.run(
        image.tag,
        detach=True,
        tty=True,
        cap_add=["SYS_ADMIN"],
        cgroupns="private",
        network_mode="none",
        stop_signal="SIGRTMIN+3",
    )
    try:
        deadline = time.monotonic() + 60
        while state(container) not in {"running", "degraded"}:
            assert time.monotonic() < deadline, container.logs().decode()
            time.sleep(0.1)
        yield container
    finally:
        with suppress(NotFound):
            container.remove(force=True)


def state(container: Container) -> str:
    return output(container, "systemctl is-system-running").strip()


def output(container: Container, command: str) -> str:
    return str(container.exec_run(["bash", "-c", command]).output.decode())


def test_two_runs_import_an_image_once(image: Imported) -> None:
    assert len([text for text in image.said if text.startswith("importing ")]) == 1


def test_the_engine_takes_an_image_only_once(
    engine: docker.DockerClient, image: Imported, small: Image
) -> None:
    said: list[str] = []
    into_docker(engine, small, lambda _, text: said.append(text))
    assert said == []


def test_the_image_says_what_it_is(
    engine: docker.DockerClient, image: Imported, small: Image
) -> None:
    assert engine.images.get(image.tag).labels["nxc_testing.image"] == small.digest


def test_the_image_does_not_say_where_it_was_made(
    engine: docker.DockerClient, image: Imported, cache: Cache
) -> None:
    assert str(cache.root) not in str(engine.images.get(image.tag).attrs)


def test_base_boots_to_running_without_a_failed_unit(machine: Container) -> None:
    assert state(machine) == "running", output(machine, "systemctl --failed")


def test_base_has_no_timer_that_waits_for_the_network(machine: Container) -> None:
    timers = output(machine, "systemctl list-timers --plain --no-legend | grep -o '[^ ]*[.]timer'")
    assert timers.split() == ["systemd-tmpfiles-clean.timer"]


def test_base_has_what_drivers_and_tests_use(machine: Container) -> None:
    wanted = "bash perl ip ping ps nc ssh nft curl sudo systemctl journalctl su setsid tar"
    missing = f"for tool in {wanted}; do command -v $tool >/dev/null || echo $tool; done"
    assert output(machine, missing) == ""


def test_prune_takes_what_is_old_but_for_what_a_container_uses(
    engine: docker.DockerClient,
    machine: Container,
    small: Image,
    base: Image,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.utime(small.rootfs.parent / META, (1, 1))
    assert main(["image", "prune"]) == 0
    said = capsys.readouterr().out
    assert f"removed {small.name} {small.digest[:12]}" in said
    assert f"{tag_of(small)} stays in Docker: a container uses it" in said
    assert base.rootfs.exists()
    machine.remove(force=True)
    assert main(["image", "prune"]) == 0
    with pytest.raises(ImageNotFound):
        engine.images.get(tag_of(small))
