"""What `import nxc_testing` gives."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

import nxc_testing
from nxc_testing import errors

HEAVY = ("asyncio", "docker", "filelock", "pexpect", "psutil", "yaml")


@pytest.mark.parametrize("name", nxc_testing.__all__)
def test_a_name_is_there_and_is_what_its_module_defines(name: str) -> None:
    value = getattr(nxc_testing, name)
    home = next((home for home, names in nxc_testing._HOMES.items() if name in names), "errors")  # noqa: SLF001
    assert value is getattr(import_module(f"nxc_testing.{home}"), name)


def test_the_list_is_sorted_and_names_nothing_twice() -> None:
    assert nxc_testing.__all__ == sorted(set(nxc_testing.__all__))


def test_a_star_import_gives_the_list() -> None:
    names: dict[str, object] = {}
    exec("from nxc_testing import *", names)  # noqa: S102 (no other way inside a function)
    assert set(names) - {"__builtins__"} == set(nxc_testing.__all__)


def test_every_error_is_among_them() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.NxcError)
    }
    assert defined <= set(nxc_testing.__all__)


def test_they_are_listed() -> None:
    assert set(nxc_testing.__all__) <= set(dir(nxc_testing))


def test_what_is_not_among_them_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'nxc_testing' has no attribute 'Maschine'"):
        nxc_testing.Maschine  # noqa: B018


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads in a new interpreter."""
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_of_it() -> None:
    loaded = loaded_by("import nxc_testing")
    assert {name for name in loaded if name.startswith("nxc_testing.")} == set()
    assert not loaded & set(HEAVY)


def test_importing_machines_loads_no_engine_and_no_terminal() -> None:
    loaded = loaded_by("from nxc_testing import Driver, Machine, open_driver")
    assert "nxc_testing.machine" in loaded
    assert not loaded & {"docker", "pexpect", "requests"}
