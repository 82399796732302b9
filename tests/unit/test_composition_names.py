"""Names that machines may not have, held against what pytest really has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nxc_testing.composition import python_name
from nxc_testing.composition.names import PYTEST_FIXTURES


@pytest.mark.parametrize(
    ("host", "name"),
    [("server", "server"), ("my-node", "my_node"), ("1st", "_st"), ("a.b", "a_b")],
)
def test_tests_spell_names_as_the_nixos_driver_does(host: str, name: str) -> None:
    assert python_name(host) == name


def test_every_fixture_of_pytest_is_reserved(tmp_path: Path) -> None:
    listing = subprocess.run(
        [sys.executable, "-m", "pytest", "--fixtures", "-p", "pytester"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    fixtures = set(re.findall(r"^(\w+)(?: \[\w+ scope\])? -- ", listing, re.MULTILINE))
    assert {"tmp_path", "tmp_path_factory", "subtests", "pytester"} <= fixtures
    assert fixtures - PYTEST_FIXTURES == set()
