"""The marker `nxc_needs`: what a test needs of the machines, on whatever backend it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_nxc.lifetime import Lifetime, bed_above

if TYPE_CHECKING:
    from nxc_testing.backends.capabilities import Capability

NEEDS = "nxc_needs"
HELP = (
    f"{NEEDS}(capability, ...): skip the test on backends that cannot do this; the capabilities"
    " are those of docs/backends.md, like Links or Freezes"
)


class Marks:
    """A plugin that skips tests whose backend cannot do what they need."""

    def __init__(self, lifetime: Lifetime):
        self._lifetime = lifetime
        lifetime.config.addinivalue_line("markers", HELP)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Skip tests, with the reason.

        :raise pytest.UsageError: if a marker names what is no capability.
        """
        marked = [item for item in items if bed_above(item) and item.get_closest_marker(NEEDS)]
        if not marked:
            return
        from nxc_testing import backends  # noqa: PLC0415 (only where the marker is used)

        backend = self._lifetime.backend.name
        node_type = backends.create(backend).node_type()
        for item in marked:
            for one in _needs(item):
                if not one.declared_by(node_type):
                    reason = f"backend {backend} cannot do this ({one.name}): {one.what}"
                    item.add_marker(pytest.mark.skip(reason=reason))


def _needs(item: pytest.Item) -> Iterator[Capability]:
    from nxc_testing.backends.capabilities import CAPABILITIES  # noqa: PLC0415 (as above)

    known = {one.name: one for one in CAPABILITIES}
    for name in (name for mark in item.iter_markers(NEEDS) for name in mark.args):
        if name not in known:
            raise pytest.UsageError(
                f"{item.nodeid}: {NEEDS}({name!r}): no such capability; there are"
                f" {', '.join(known)}"
            )
        yield known[name]
