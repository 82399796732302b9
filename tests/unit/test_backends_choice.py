"""Which backend `auto` is, on hosts that have this or that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nxc_testing import backends
from nxc_testing.backends.capabilities import CAPABILITIES, Capability
from nxc_testing.backends.docker import DockerBackend
from nxc_testing.backends.nspawn import NspawnBackend
from nxc_testing.backends.nspawn.needs import TOOLS
from nxc_testing.backends.qemu import QemuBackend
from nxc_testing.backends.qemu.acceleration import CHOICE
from nxc_testing.errors import ConfigError


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor KVM."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/engine.sock")
    monkeypatch.setenv(CHOICE, "tcg")


@pytest.fixture
def no_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_what_the_user_names_is_taken_whether_or_not_it_can_be_used(no_engine: None) -> None:
    assert str(backends.choose("docker")) == "docker"


def test_what_is_not_installed_is_refused_with_what_is() -> None:
    with pytest.raises(ConfigError, match=r"no backend 'dokcer'\n.*docker, fake, nspawn"):
        backends.choose("dokcer")


def test_an_engine_that_answers_comes_first() -> None:
    if why := DockerBackend().unavailable():
        pytest.skip(why)
    assert str(backends.choose("auto")) == "docker (auto: a Docker engine answers)"


def test_without_an_engine_it_is_nspawn_and_says_why(no_engine: None) -> None:
    if why := NspawnBackend().unavailable():
        pytest.skip(why)
    choice = backends.choose("auto")
    assert choice.name == "nspawn"
    assert "systemd-nspawn is there; no docker, as there is no Docker engine at" in choice.reason


def test_where_kvm_works_it_is_virtual_machines(
    no_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why := QemuBackend().unavailable():
        pytest.skip(why)
    monkeypatch.setenv(CHOICE, "kvm")
    assert str(backends.choose("auto")).startswith("qemu (auto: QEMU is there; no docker, as ")


def test_emulation_is_the_last_resort(
    no_engine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if why := QemuBackend().unavailable():
        pytest.skip(why)
    for tool in ("qemu-system-x86_64", "qemu-img"):
        (tmp_path / tool).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    choice = backends.choose("auto")
    assert choice.name == "qemu"
    assert "qemu only where nothing else is, as NXC_QEMU_ACCEL says so" in choice.reason
    assert "no nspawn, as " in choice.reason


def capability(name: str) -> Capability:
    return next(one for one in CAPABILITIES if one.name == name)


def test_auto_passes_over_what_lacks_a_capability() -> None:
    if why := QemuBackend().unavailable():
        pytest.skip(why)
    choice = backends.choose("auto", [capability("OwnKernel")])
    assert choice.name == "qemu"
    assert "no docker, as " in choice.reason
    assert "no nspawn, as " in choice.reason


def test_where_nothing_has_a_capability_auto_tells_what_each_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if why := NspawnBackend().unavailable():
        pytest.skip(why)
    monkeypatch.setattr(backends, "CANDIDATES", {"nspawn": "it is there"})
    choice = backends.choose("auto", [capability("OwnKernel"), capability("Links")])
    assert str(choice) == "nspawn (auto: no nspawn, as it has no OwnKernel)"


def test_what_the_user_names_is_taken_whatever_it_lacks() -> None:
    assert str(backends.choose("fake", [capability("OwnKernel")])) == "fake"


def test_the_prompt_refuses_a_backend_that_lacks_what_is_needed(tmp_path: Path) -> None:
    head = '[composition]\nimage = "none"\nneeds = ["OwnKernel"]\n'
    (tmp_path / "composition.toml").write_text(f"{head}[roles.a]\n")
    command = [Path(sys.executable).parent / "nxc-test", "shell", "--backend=fake", tmp_path]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "composition.needs: backend fake cannot do this (OwnKernel)" in done.stderr


def test_where_none_can_be_used_all_obstacles_are_told(no_engine: None, no_tools: None) -> None:
    with pytest.raises(ConfigError, match="this host can use no backend") as raised:
        backends.choose("auto")
    for name in backends.CANDIDATES:
        assert f"no {name}, as " in raised.value.hint


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_that_nspawn_misses_is_told_with_its_package(
    tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if why := NspawnBackend().unavailable():
        pytest.skip(why)
    for other in TOOLS.keys() - {tool}:
        (tmp_path / other).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    told = NspawnBackend().unavailable()
    assert told == f"{tool} is missing: `apt-get install {TOOLS[tool]}`"


def test_the_prompt_tells_its_choice(no_engine: None, tmp_path: Path) -> None:
    if why := NspawnBackend().unavailable():
        pytest.skip(why)
    (tmp_path / "composition.toml").write_text('[composition]\nimage = "none"\n[roles.a]\n')
    command = [Path(sys.executable).parent / "nxc-test", "shell", tmp_path]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("backend: nspawn (auto: ")
    assert "none called 'none': name a recipe" in done.stderr
