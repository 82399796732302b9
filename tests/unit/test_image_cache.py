"""The cache of images: whole ones are found, others are not, and nothing in use goes away."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from nxc_testing.images.cache import META, ROOTFS, Cache, Cached, Meta

DIGEST = "a" * 64
OTHER = "b" * 64


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def put(cache: Cache, digest: str = DIGEST, content: str = "rootfs", build: str = "1") -> Cached:
    """Put an image where a build would."""
    with cache.building(digest) as directory:
        out = directory / "out"
        out.mkdir()
        (out / ROOTFS).write_text(content)
        meta = Meta(
            name="demo",
            digest=digest,
            parent="",
            suite="bookworm",
            build=build,
            built_at=time.time(),
            packages=1,
            size=len(content),
            seconds=1.0,
        )
        return cache.keep(out, meta)


def names(cache: Cache) -> list[str]:
    return sorted(path.name for path in cache.images.iterdir())


def test_an_image_is_found_as_it_was_put(cache: Cache) -> None:
    put(cache)
    found = cache.find(DIGEST)
    assert found
    assert (found.image.name, found.image.digest) == ("demo", DIGEST)
    assert found.image.rootfs.read_text() == "rootfs"


def test_nothing_is_left_beside_a_finished_image(cache: Cache) -> None:
    put(cache)
    assert names(cache) == [DIGEST]


def test_an_image_cut_short_is_not_found(cache: Cache) -> None:
    put(cache).image.rootfs.write_text("root")
    assert cache.find(DIGEST) is None


def test_an_image_without_its_description_is_not_found(cache: Cache) -> None:
    (put(cache).directory / META).write_text("{")
    assert cache.find(DIGEST) is None


def test_a_new_build_takes_the_place_of_the_old(cache: Cache) -> None:
    put(cache, content="old", build="1")
    put(cache, content="newer", build="2")
    found = cache.find(DIGEST)
    assert found
    assert (found.image.rootfs.read_text(), found.meta.build) == ("newer", "2")
    assert names(cache) == [DIGEST]


def test_a_build_that_fails_leaves_nothing(cache: Cache) -> None:
    def half_a_build() -> None:
        with cache.building(DIGEST) as directory:
            (directory / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_a_build()
    assert names(cache) == []


def test_the_next_build_removes_what_a_dead_one_left(cache: Cache) -> None:
    leftover = cache.images / f".building-{DIGEST}-dead"
    (leftover / "tmp").mkdir(parents=True)
    put(cache)
    assert names(cache) == [DIGEST]


def test_leftovers_are_what_nobody_builds(cache: Cache) -> None:
    dead = cache.images / f".building-{OTHER}-dead"
    dead.mkdir(parents=True)
    with cache.lock(DIGEST, "a build", lambda _: None), cache.building(DIGEST):
        # The lock is another's, as far as a second cache of the same place can tell.
        assert Cache(cache.root).leftovers() == [dead]


def test_finding_an_image_counts_as_its_use(cache: Cache) -> None:
    os.utime(put(cache).directory / META, (1, 1))
    [before] = cache.all()
    cache.find(DIGEST)
    [after] = cache.all()
    assert (before.used_at, after.used_at > 1) == (1, True)


def test_images_are_listed_with_the_last_used_first(cache: Cache) -> None:
    os.utime(put(cache, DIGEST).directory / META, (1, 1))
    put(cache, OTHER)
    assert [one.meta.digest for one in cache.all()] == [OTHER, DIGEST]


def test_a_removed_image_is_gone(cache: Cache) -> None:
    put(cache)
    assert cache.remove(DIGEST)
    assert names(cache) == []


def test_an_image_that_is_being_built_is_not_removed(cache: Cache) -> None:
    put(cache)
    with cache.lock(DIGEST, "a build", lambda _: None):
        assert not Cache(cache.root).remove(DIGEST)
    assert cache.find(DIGEST)


def test_who_waits_for_a_lock_is_told_for_whom(cache: Cache) -> None:
    said: list[str] = []
    waiting = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        waiting.set()

    def second() -> None:
        with Cache(cache.root).lock(DIGEST, "second", say):
            pass

    thread = threading.Thread(target=second)
    with cache.lock(DIGEST, "a build of image demo", lambda _: None):
        thread.start()
        assert waiting.wait(10)
    thread.join()
    assert said[0].startswith("waiting for a build of image demo (pid ")


def test_the_environment_says_where_the_cache_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NXC_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert Cache().root == tmp_path / "elsewhere"
