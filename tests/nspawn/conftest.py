"""Real machines in systemd-nspawn on this host."""

from __future__ import annotations

import pytest

from nxc_testing.backends.nspawn import NspawnBackend
from nxc_testing.images import Image


@pytest.fixture(scope="session")
def image() -> Image:
    if why := NspawnBackend().unavailable():
        pytest.skip(why)
    from nxc_testing.images.builder import ensure

    return ensure("base")
