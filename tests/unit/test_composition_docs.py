"""The reference of composition.toml says what the reader does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nxc_testing.composition import load
from nxc_testing.composition.names import PYTEST_FIXTURES, SCRIPT_GLOBALS
from nxc_testing.composition.toml import ROLE_KEYS, TABLES

PAGE = (Path(__file__).parents[2] / "docs" / "compositions.md").read_text()
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    return PAGE.split(f"{title}\n", 1)[1].split("\n#", 1)[0]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_good_compositions(tmp_path: Path, example: str) -> None:
    (tmp_path / "composition.toml").write_text(example)
    for name in ("image.toml", "test_script.py"):
        (tmp_path / name).write_text("")
    assert load(tmp_path).instances()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_its_section(table: str) -> None:
    assert re.search(rf"^### `\[{table}(\.NAME)?\]`$", PAGE, re.MULTILINE)


def test_the_keys_of_a_role_are_those_of_the_page() -> None:
    keys = re.findall(r"^\| `(\w+)` \|", section("### `[roles.NAME]`"), re.MULTILINE)
    assert tuple(keys) == ROLE_KEYS


def test_names_said_to_be_refused_are_refused() -> None:
    refused = section("## Names of machines").split("A name must not mean", 1)[1]
    names = {name.replace("-", "_") for name in re.findall(r"`([\w-]+)`", refused)}
    assert names - {"machine", "vlan1"} <= PYTEST_FIXTURES | SCRIPT_GLOBALS
