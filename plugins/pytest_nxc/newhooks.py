"""Hooks that this plugin calls; implement them in a conftest.py or a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nxc_testing.session import Session


@pytest.hookspec
def pytest_nxc_session_start(session: Session, config: pytest.Config) -> None:
    """Told once in a run with machines, before anything is made for them.

    The place to `session.events.subscribe` a reader of one's own.

    :param session: nxc_testing's session, which lives until the end of the run.
    :param config: pytest's.
    """
