"""The marker `nxc_needs`: what a test needs of the machines, on whatever backend it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_nxc.lifetime import Bed, Lifetime, bed_above, bed_of

if TYPE_CHECKING:
    from nxc_testing.backends.capabilities import Capability

NEEDS = "nxc_needs"
HELP = (
    f"{NEEDS}(capability, ...): skip the test on backends that cannot do this; the capabilities"
    " are those of docs/backends.md, like Links or Freezes"
)


class Marks:
    """A plugin that skips tests whose backend cannot do what they, or their composition, need."""

    def __init__(self, lifetime: Lifetime):
        self._lifetime = lifetime
        lifetime.config.addinivalue_line("markers", HELP)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Skip tests, with the reason.

        :raise pytest.UsageError: if a marker names what is no capability.
        """
        for item in items:
            bed = bed_above(item)
            marked = bool(bed and item.get_closest_marker(NEEDS))
            if bed and (marked or (bed_of(item) and bed.composition.needs)):
                self._skip_where_it_cannot_run(item, bed)

    def _skip_where_it_cannot_run(self, item: pytest.Item, bed: Bed) -> None:
        from nxc_testing import backends  # noqa: PLC0415 (only where something is needed)

        choice = self._lifetime.backend(bed.composition)
        node_type = backends.create(choice.name).node_type()
        for one in _needs(item):
            if not one.declared_by(node_type):
                reason = f"backend {choice} cannot do this ({one.name}): {one.what}"
                item.add_marker(pytest.mark.skip(reason=reason))


def _needs(item: pytest.Item) -> Iterator[Capability]:
    from nxc_testing.backends.capabilities import CAPABILITIES, needed_by  # noqa: PLC0415 (as above)

    if bed := bed_of(item):
        yield from needed_by(bed.composition)
    known = {one.name: one for one in CAPABILITIES}
    for name in (name for mark in item.iter_markers(NEEDS) for name in mark.args):
        if name not in known:
            raise pytest.UsageError(
                f"{item.nodeid}: {NEEDS}({name!r}): no such capability; there are"
                f" {', '.join(known)}"
            )
        yield known[name]
