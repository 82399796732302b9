"""The QEMU backend passes the suite, with the built-in image."""

# ruff: noqa: F403, F405

import pytest

from nxc_testing import backends
from nxc_testing.conformance import *
from nxc_testing.images.builder import ensure


@pytest.fixture(scope="session")
def conformance_target() -> Target:
    return Target(backends.load("qemu"), image=ensure("base"))
