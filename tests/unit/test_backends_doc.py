"""docs/backends.md says what the backends can do, and how to write one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nxc_testing.backends import base
from nxc_testing.backends.base import Node, Reboots
from nxc_testing.backends.capabilities import (
    BEGIN,
    CAPABILITIES,
    END,
    capabilities,
    installed,
    table,
    with_table,
)
from nxc_testing.backends.fake import FakeNode

PAGE = (Path(__file__).parents[2] / "docs" / "backends.md").read_text()


class Least:
    """A node without any capability; only its type is looked at."""


def test_the_table_is_up_to_date() -> None:
    assert PAGE.count(BEGIN) == PAGE.count(END) == 1
    assert with_table(PAGE, installed()) == PAGE, (
        "run: python -m nxc_testing.backends.capabilities docs/backends.md"
    )


def test_every_installed_backend_has_a_column() -> None:
    assert {"docker", "fake"} <= set(installed())
    header = table(installed()).splitlines()[0]
    assert all(f"| `{name}` |" in header for name in installed())


def test_every_capability_has_a_row() -> None:
    rows = table(installed()).splitlines()[2:]
    assert [re.findall(r"`(\w+)`", row)[0] for row in rows] == [one.name for one in CAPABILITIES]


def test_a_type_without_capabilities_has_none() -> None:
    least: type = Least
    assert capabilities(least) == ()
    assert table({"least": least}).count("| no |") == len(CAPABILITIES)


def test_a_capability_needs_every_member_of_its_protocol() -> None:
    (reboots,) = [one for one in CAPABILITIES if one.protocol is Reboots]
    members = {name: None for name in vars(Reboots) if not name.startswith("_")}
    assert reboots.declared_by(type("Whole", (), members))
    for missing in members:
        rest = {name: None for name in members if name != missing}
        assert not reboots.declared_by(type("Part", (), rest))


def test_the_fake_declares_what_it_does() -> None:
    assert {one.name for one in capabilities(FakeNode)} == {"Reboots", "Freezes"}


def test_every_protocol_of_a_node_is_a_capability() -> None:
    protocols = {
        value
        for value in vars(base).values()
        if getattr(value, "_is_runtime_protocol", False) and value.__module__ == base.__name__
    }
    others = {base.Reaps, base.Explains, base.MayBeSlow, base.JoinsSegments, base.OffersSegments}
    assert protocols - others == {one.protocol for one in CAPABILITIES}


@pytest.mark.parametrize("name", [name for name in vars(Node) if not name.startswith("_")])
def test_every_member_of_a_node_is_explained(name: str) -> None:
    assert f"`{name}" in PAGE


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_its_examples_are_python(example: str) -> None:
    compile(example, "docs/backends.md", "exec")
