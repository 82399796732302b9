"""Real machines in systemd-nspawn on this host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("deploys", "facts", "links", "machine_lab", "nspawn_lab", "power")

from machine_lab import Lab  # noqa: E402

from nxc_testing.backends.nspawn import NspawnBackend  # noqa: E402
from nxc_testing.images import Image  # noqa: E402


@pytest.fixture(scope="session")
def image() -> Image:
    if why := NspawnBackend().unavailable():
        pytest.skip(why)
    from nxc_testing.images.builder import ensure

    return ensure("base")


@pytest.fixture
def lab(tmp_path: Path, image: Image) -> Iterator[Lab]:
    lab = Lab(NspawnBackend(), tmp_path, image)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Iterator[Lab]:
    """For machines that several tests look at, and none changes."""
    lab = Lab(NspawnBackend(), tmp_path_factory.mktemp("lab"), image)
    yield lab
    lab.close()
