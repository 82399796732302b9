"""Brings images into a Docker engine, once each."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator

import docker
from docker.errors import DockerException, ImageNotFound
from docker.models.containers import Container
from docker.models.images import Image as EngineImage

from nxc_testing.errors import ImageError
from nxc_testing.images import Image
from nxc_testing.images.cache import Cache

LABEL_IMAGE = "nxc_testing.image"
LABEL_BUILD = "nxc_testing.build"
LABEL_CACHE = "nxc_testing.cache"

COMMAND = 'CMD ["/lib/systemd/systemd"]'
"""An import cannot set the stop signal (SIGRTMIN+3): who creates the container does."""


def tag_of(image: Image) -> str:
    """The name of an image in the engine."""
    return f"nxc-testing/{image.name}:{image.digest[:12]}"


def into_docker(
    client: docker.DockerClient,
    image: Image,
    progress: Callable[[str, str], None] = lambda topic, message: None,
) -> str:
    """Make the engine have an image; it is imported unless the engine has it already.

    :param client: of the engine.
    :param image: from the cache.
    :param progress: told a topic and a message when something slow begins or ends.
    :return: the image's name in the engine.
    :raise ImageError: if the engine does not take it.
    """
    cache = Cache.of(image)
    topic, tag = f"image {image.name}", tag_of(image)

    def say(text: str) -> None:
        progress(topic, text)

    # The image's own lock: nobody removes it meanwhile.
    with cache.lock(image.digest, f"the import of {topic} into Docker", say):
        cached = cache.find(image.digest)
        if cached is None:
            raise ImageError(f"{topic} is no longer in the cache {cache.root}: build it again")
        labels = {
            LABEL_IMAGE: image.digest,
            LABEL_BUILD: cached.meta.build,
            LABEL_CACHE: _mark(cache),
        }
        try:
            if _has(client, tag, labels):
                return tag
            say(f"importing {cached.meta.size / 1e6:.0f} MB into Docker")
            started = time.monotonic()
            _import(client, image, tag, labels)
        except DockerException as error:
            raise ImageError(f"{topic}: Docker did not take it: {error}") from error
        say(f"imported into Docker as {tag} ({time.monotonic() - started:.0f} s)")
    return tag


def _has(client: docker.DockerClient, tag: str, labels: dict[str, str]) -> bool:
    """Whether the engine has an image: this build of it, or any build from another cache.

    Two users of one engine would else take the name from each other at every run.
    """
    try:
        has = client.images.get(tag).labels
    except ImageNotFound:
        return False
    if has.get(LABEL_CACHE) != labels[LABEL_CACHE]:
        return has.get(LABEL_IMAGE) == labels[LABEL_IMAGE]
    return has == labels


def _import(client: docker.DockerClient, image: Image, tag: str, labels: dict[str, str]) -> None:
    repository, _, version = tag.partition(":")
    answer = client.api.import_image(
        src=str(image.rootfs),
        repository=repository,
        tag=version,
        changes=[COMMAND, *(f"LABEL {name}={value}" for name, value in labels.items())],
    )
    for line in answer.splitlines():
        # The engine has said 200 before it reads the archive: errors come in the body.
        if error := json.loads(line).get("error"):
            raise ImageError(f"image {image.name}: Docker did not take it: {error}")


def imported(client: docker.DockerClient, cache: Cache) -> Iterator[tuple[EngineImage, str, bool]]:
    """The engine's images that came from a cache.

    :return: each with its digest in the cache, and whether a container uses it.
    """
    used = {container.attrs["ImageID"] for container in _containers(client)}
    for found in client.images.list(all=True, filters={"label": f"{LABEL_CACHE}={_mark(cache)}"}):
        yield found, found.labels[LABEL_IMAGE], found.id in used


def _containers(client: docker.DockerClient) -> list[Container]:
    # Sparse: a container that goes away meanwhile is no error.
    return client.containers.list(all=True, sparse=True)


def _mark(cache: Cache) -> str:
    """A cache as its images in the engine name it: no path of the host goes there."""
    return hashlib.sha256(str(cache.root).encode()).hexdigest()[:16]
