"""Whether KVM works is tried, remembered, and told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nxc_testing.backends.qemu import acceleration
from nxc_testing.backends.qemu.acceleration import CHOICE, Verdict, choose, known, probe
from nxc_testing.cli import main
from nxc_testing.images import Image
from nxc_testing.images.cache import Cache
from nxc_testing.images.vm import VmImage, into_vm


@pytest.fixture
def vm(base: Image) -> VmImage:
    return into_vm(base)


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A device that is there and may be opened, whatever it is good for."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(acceleration, "DEVICE", device)
    monkeypatch.delenv(CHOICE, raising=False)


def test_a_kernel_that_runs_says_so(vm: VmImage) -> None:
    verdict = probe(vm, timeout=120, accelerator="tcg")
    assert verdict.accelerator == "tcg"
    assert "a kernel was booted" in verdict.reason


def test_a_kernel_that_hangs_is_given_up(vm: VmImage) -> None:
    # Under emulation it says nothing for longer than that.
    verdict = probe(vm, timeout=0.1, accelerator="tcg")
    assert verdict.accelerator == "tcg"
    assert "hangs" in verdict.reason


def test_a_qemu_that_fails_is_quoted(vm: VmImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "accelerator_options", lambda _: ["-accel", "none-such"])
    verdict = probe(vm)
    assert verdict.accelerator == "tcg"
    assert "none-such" in verdict.reason


def test_what_was_found_out_is_remembered(
    vm: VmImage, usable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[VmImage] = []

    def once(image: VmImage) -> Verdict:
        tried.append(image)
        return Verdict("kvm", "it was tried")

    monkeypatch.setattr(acceleration, "probe", once)
    cache = Cache(tmp_path / "cache")
    assert choose(vm, cache) == choose(vm, cache) == Verdict("kvm", "it was tried")
    assert tried == [vm]
    monkeypatch.setattr(acceleration, "BOOT_ID", Path("/proc/version"))
    choose(vm, cache)
    assert tried == [vm, vm]


def test_a_damaged_memory_is_no_memory(
    vm: VmImage, usable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceleration, "probe", lambda _: Verdict("kvm", "anew"))
    cache = Cache(tmp_path / "cache")
    choose(vm, cache)
    (path,) = (cache.root / "acceleration").iterdir()
    path.write_text(json.dumps({"half": 1}))
    assert choose(vm, cache).reason == "anew"


def test_the_user_can_decide(vm: VmImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOICE, "tcg")
    assert choose(vm, Cache(tmp_path)).accelerator == "tcg"


def test_without_the_device_there_is_nothing_to_try(
    vm: VmImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CHOICE, raising=False)
    monkeypatch.setattr(acceleration, "DEVICE", tmp_path / "no-kvm")
    assert "has no" in choose(vm, Cache(tmp_path)).reason
    assert known(Cache(tmp_path)) is not None


def test_the_doctor_tells(capsys: pytest.CaptureFixture[str], vm: VmImage) -> None:
    assert main(["doctor"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {"BACKEND", "docker", "fake", "nspawn", "qemu"} <= set(rows)
    assert rows["fake"].split()[:2] == ["fake", "yes"]
    assert rows["qemu"].split()[:3] in (["qemu", "yes", "tcg:"], ["qemu", "yes", "kvm:"])
