"""Real machines in the engine of this host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("deploys", "facts", "links", "machine_lab", "power")

from machine_lab import Lab  # noqa: E402

from nxc_testing.backends.docker import DockerBackend  # noqa: E402
from nxc_testing.images import Image  # noqa: E402


@pytest.fixture(scope="session")
def image() -> Image:
    if why := DockerBackend().unavailable():
        pytest.skip(why)
    from nxc_testing.images.builder import ensure

    return ensure("base")


@pytest.fixture
def lab(tmp_path: Path, image: Image) -> Iterator[Lab]:
    lab = Lab(DockerBackend(), tmp_path, image)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Iterator[Lab]:
    """For machines that several tests look at, and none changes."""
    lab = Lab(DockerBackend(), tmp_path_factory.mktemp("lab"), image)
    yield lab
    lab.close()
