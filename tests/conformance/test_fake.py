"""The fake backend passes the suite, but for what needs a system in each machine."""

# ruff: noqa: F403, F405

import pytest

from nxc_testing.backends.fake import CONSOLE, FakeBackend
from nxc_testing.conformance import *


@pytest.fixture(scope="session")
def conformance_target() -> Target:
    return Target(FakeBackend(), image="none", console=f"${CONSOLE}")
