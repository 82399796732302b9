"""Images that are unpacked for machines that share their files."""

from __future__ import annotations

import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from nxc_testing.cli import main
from nxc_testing.errors import ImageError
from nxc_testing.images import Image
from nxc_testing.images.cache import ENVIRONMENT, ROOTFS, Cache, Meta
from nxc_testing.images.roots import ROOTS, UNPACKING, unpacked

DIGEST = "c" * 64


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    if os.geteuid():
        pytest.skip("only root can unpack an image with its owners")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "cache"))
    return Cache()


def put(cache: Cache, build: str = "1") -> Image:
    """Put an image where a build would: a file of another user, that its group may read."""
    with cache.building(DIGEST) as directory:
        out = directory / "out"
        out.mkdir()
        file = directory / "file"
        file.write_text(build)
        os.chown(file, 1234, 5678)
        file.chmod(0o4750)
        with tarfile.open(out / ROOTFS, "w") as tar:
            tar.add(file, "./etc/file")
        size = (out / ROOTFS).stat().st_size
        meta = Meta("demo", DIGEST, "", "bookworm", build, time.time(), 1, size, 1.0)
        return cache.keep(out, meta).image


def names(cache: Cache) -> list[str]:
    return sorted(path.name for path in (cache.root / ROOTS).iterdir())


def test_files_have_their_owners_and_modes(cache: Cache) -> None:
    file = unpacked(put(cache)) / "etc" / "file"
    status = file.stat()
    assert file.read_text() == "1"
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 5678, 0o4750)


def test_it_is_unpacked_once(cache: Cache) -> None:
    image = put(cache)
    said: list[str] = []
    first = unpacked(image, lambda topic, message: said.append(f"{topic}: {message}"))
    assert said[0].startswith("image demo: unpacking")
    said.clear()
    assert unpacked(image, lambda topic, message: said.append(message)) == first
    assert said == []
    assert names(cache) == [first.name]


def test_another_build_is_unpacked_beside_it(cache: Cache) -> None:
    first, second = unpacked(put(cache)), unpacked(put(cache, "2"))
    assert [(root / "etc" / "file").read_text() for root in (first, second)] == ["1", "2"]


def test_what_a_dead_unpacking_left_goes(cache: Cache) -> None:
    leftover = cache.root / ROOTS / f"{UNPACKING}{DIGEST}-dead"
    leftover.mkdir(parents=True)
    unpacked(put(cache))
    assert not leftover.exists()


def test_an_image_that_is_gone_is_told(cache: Cache) -> None:
    image = put(cache)
    cache.remove(DIGEST)
    with pytest.raises(ImageError, match=r"demo is no longer in the cache .*: build it again"):
        unpacked(image)


def test_an_archive_that_is_none_is_told_and_leaves_nothing_to_be_taken_for_one(
    cache: Cache,
) -> None:
    image = put(cache)
    image.rootfs.write_bytes(b"x" * image.rootfs.stat().st_size)
    with pytest.raises(ImageError, match="cannot be unpacked: "):
        unpacked(image)
    assert [name for name in names(cache) if not name.startswith(UNPACKING)] == []


class TestPrune:
    def test_the_present_build_of_an_image_stays(self, cache: Cache) -> None:
        root = unpacked(put(cache))
        assert main(["image", "prune"]) == 0
        assert root.exists()

    def test_an_earlier_build_goes(self, cache: Cache) -> None:
        first, second = unpacked(put(cache)), unpacked(put(cache, "2"))
        assert main(["image", "prune"]) == 0
        assert (first.exists(), second.exists()) == (False, True)
        assert names(cache) == [second.name]

    def test_it_goes_with_its_image(self, cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
        root = unpacked(put(cache))
        assert main(["image", "prune", "--all"]) == 0
        assert f"removed {root} (unpacked for nspawn)" in capsys.readouterr().out
        assert not root.exists()

    def test_a_dry_run_removes_nothing(self, cache: Cache) -> None:
        root = unpacked(put(cache))
        assert main(["image", "prune", "--all", "--dry-run"]) == 0
        assert root.exists()

    def test_what_a_machine_runs_on_stays(self, cache: Cache) -> None:
        root = unpacked(put(cache))
        machine = Path("/var/tmp/nxc-0000dead-nspawn/machines/one")
        machine.mkdir(parents=True)
        try:
            (machine / "lower").symlink_to(root)
            assert main(["image", "prune", "--all"]) == 0
            assert root.exists()
        finally:
            subprocess.run(["rm", "-r", machine.parents[1]], check=True)

    def test_what_is_being_unpacked_stays(self, cache: Cache) -> None:
        half = cache.root / ROOTS / f"{UNPACKING}{DIGEST}-now"
        half.mkdir(parents=True)
        with cache.lock(DIGEST, "a test", lambda _: None):
            assert main(["image", "prune"]) == 0
        assert half.exists()
