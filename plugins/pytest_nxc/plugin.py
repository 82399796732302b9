"""The pytest plugin of nxc_testing: its options, its hooks, and who serves them.

Importing it is cheap: what is not, like Docker's client, is imported by the first test that
needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_nxc import frames, newhooks, options
from pytest_nxc.collection import Collection
from pytest_nxc.distribution import Distribution
from pytest_nxc.lifetime import Lifetime
from pytest_nxc.live import Live
from pytest_nxc.marks import Marks
from pytest_nxc.reports import Reports

LIFETIME = pytest.StashKey[Lifetime]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the group `nxc`."""
    options.add(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add this plugin's own hooks."""
    pluginmanager.add_hookspecs(newhooks)


def pytest_configure(config: pytest.Config) -> None:
    """Set up the parts; nothing is made for machines yet."""
    lifetime = Lifetime(config, options.read(config))
    config.stash[LIFETIME] = lifetime
    config.pluginmanager.register(lifetime, "nxc-lifetime")
    config.pluginmanager.register(Collection(lifetime), "nxc-collection")
    config.pluginmanager.register(Reports(lifetime), "nxc-reports")
    config.pluginmanager.register(Live(config), "nxc-live")
    config.pluginmanager.register(Marks(lifetime), "nxc-marks")
    config.pluginmanager.register(Distribution(lifetime), "nxc-distribution")


def pytest_report_collectionfinish(
    config: pytest.Config, items: Sequence[pytest.Item]
) -> list[str]:
    """Tell what machines the run will use; not in runs without any."""
    quiet = config.get_verbosity() < 0 or config.getoption("collectonly")
    return [] if quiet else config.stash[LIFETIME].header(items)


@pytest.hookimpl(tryfirst=True)
def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, call: pytest.CallInfo[object]
) -> None:
    """Have `--pdb` open where the test failed."""
    own_wanted = node.config.getoption("fulltrace")
    if call.excinfo and node.config.getoption("usepdb") and not own_wanted:
        frames.open_debugger_above(call.excinfo)
