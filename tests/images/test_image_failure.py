"""Builds that fail, are killed, or get into each other's way."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from nxc_testing.errors import ImageError
from nxc_testing.images.builder import ensure
from nxc_testing.images.cache import Cache
from nxc_testing.images.recipe import load

MakeRecipe = Callable[..., Path]
Start = Callable[..., subprocess.Popen[str]]

SLOW = "exec sleep 4.125"
"""The script of a build to catch in the middle: what it runs can be found by its arguments."""


def unfinished(cache: Cache) -> list[Path]:
    return list(cache.images.glob(".*"))


def sleepers() -> list[int]:
    """Processes of the slow script, wherever they run."""
    found = psutil.process_iter(["cmdline"])
    return [one.pid for one in found if one.info["cmdline"] == ["sleep", "4.125"]]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def in_the_script(start: Start, recipe: Path) -> subprocess.Popen[str]:
    """A build that is in the middle of its script."""
    process = start("build", recipe)
    wait_until(sleepers)
    return process


@dataclass
class Story:
    """A build is killed in its middle; then two others want the image at once."""

    whole: bool
    mounts: str
    outputs: list[str]
    statuses: list[int]


@pytest.fixture(scope="module")
def story(nxc_test: Start, make_recipe: MakeRecipe, cache: Cache) -> Story:
    recipe = make_recipe(SLOW)
    victim = in_the_script(nxc_test, recipe)
    victim.kill()
    victim.wait()
    wait_until(lambda: not sleepers())
    whole = cache.find(load(recipe).digest) is not None
    mounts = Path("/proc/mounts").read_text()
    both = [in_the_script(nxc_test, recipe), nxc_test("build", recipe)]
    outputs = [process.communicate()[0] for process in both]
    return Story(whole, mounts, outputs, [process.returncode for process in both])


def test_nothing_that_looks_whole_is_left(story: Story) -> None:
    assert not story.whole


def test_no_mount_is_left(story: Story, cache: Cache) -> None:
    assert str(cache.root) not in story.mounts


def test_the_next_build_works(story: Story) -> None:
    assert story.statuses == [0, 0], story.outputs


def test_two_runs_that_need_the_image_build_it_once(story: Story) -> None:
    assert ["building, log in" in output for output in story.outputs] == [True, False]


def test_the_second_says_for_whom_it_waits(story: Story) -> None:
    assert "waiting for a build of image test-" in story.outputs[1]


def test_what_the_killed_build_left_is_removed(story: Story, cache: Cache) -> None:
    assert unfinished(cache) == []


def test_a_failing_script_is_told_with_its_status_and_output(
    make_recipe: MakeRecipe, cache: Cache
) -> None:
    recipe = load(make_recipe("echo this is why >&2; exit 7"))
    log = cache.logs / f"{recipe.name}-{recipe.digest[:12]}.log"
    with pytest.raises(ImageError) as caught:
        ensure(recipe.path, cache=cache)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"image {recipe.name}: script setup.sh ended with status 7"
    assert lines[-2:] == ["    this is why", f"  the whole log: {log}"]
    assert "this is why" in log.read_text()
    assert unfinished(cache) == []


def test_a_package_that_does_not_exist_is_named(make_recipe: MakeRecipe, cache: Cache) -> None:
    with pytest.raises(ImageError, match="Unable to locate package no-such-package"):
        ensure(make_recipe(packages='["no-such-package"]'), cache=cache)


def test_a_missing_tool_is_named_with_its_package(
    cache: Cache, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nxc_testing.images.builder.TOOLS", {"no-such-tool": "its-package"})
    with pytest.raises(ImageError, match="apt-get install its-package"):
        ensure(make_recipe("true"), cache=cache)


def test_a_signal_ends_a_build_and_takes_everything_away(
    nxc_test: Start, make_recipe: MakeRecipe, cache: Cache
) -> None:
    process = in_the_script(nxc_test, make_recipe(SLOW))
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert (sleepers(), unfinished(cache)) == ([], [])
