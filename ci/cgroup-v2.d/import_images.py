"""Bring the images of the cache into Docker, however long this machine takes for it.

An image that another one of them extends is left out.
"""

from __future__ import annotations

import sys

import docker

from nxc_testing.images.cache import Cache
from nxc_testing.images.docker import into_docker

TIMEOUT = 3600
"""Seconds. An emulated processor takes minutes where others take seconds."""


def say(topic: str, message: str) -> None:
    """Tell of an import's progress."""
    sys.stdout.write(f"{topic}: {message}\n")
    sys.stdout.flush()


def main() -> None:
    """Import."""
    cached = Cache().all()
    extended = {one.meta.parent for one in cached}
    engine = docker.from_env(timeout=TIMEOUT)
    for one in cached:
        if one.meta.digest not in extended:
            into_docker(engine, one.image, say)


if __name__ == "__main__":
    main()
