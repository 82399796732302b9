"""A cache with the built-in `base`, shared by all tests of this folder, and recipes upon it.

A build takes seconds: tests share what they can.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nxc_testing.images import Image
from nxc_testing.images.builder import ensure
from nxc_testing.images.cache import NAMESPACES, Cache, remove_tree

MakeRecipe = Callable[..., Path]

AS_ROOT = NAMESPACES if os.geteuid() else ()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    """An empty cache of these tests alone; also the one that `nxc-test` uses in them."""
    cache = Cache(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NXC_CACHE_DIR", str(cache.root))
        yield cache
    remove_tree(cache.images)


@pytest.fixture(scope="session")
def base(cache: Cache) -> Image:
    """The built-in recipe, built once."""
    return ensure("base", cache=cache)


@pytest.fixture(scope="session")
def make_recipe(tmp_path_factory: pytest.TempPathFactory, base: Image) -> MakeRecipe:
    """Writes a recipe upon base, under a name that no other run has."""

    def make(
        script: str = "", *, packages: str = "", files: str = "", extends: str = "base"
    ) -> Path:
        directory = tmp_path_factory.mktemp("recipe")
        lines = ["[image]", f'name = "test-{secrets.token_hex(4)}"', f'extends = "{extends}"']
        if packages:
            lines.append(f"packages = {packages}")
        if script:
            (directory / "setup.sh").write_text(f"#!/bin/bash -eu\n{script}\n")
            (directory / "setup.sh").chmod(0o755)
            lines.append('scripts = ["setup.sh"]')
        recipe = directory / "image.toml"
        recipe.write_text("\n".join([*lines, files, ""]))
        return recipe

    return make


@pytest.fixture(scope="session")
def small_recipe(make_recipe: MakeRecipe) -> Path:
    """A cheap recipe upon base."""
    files = '[files]\n"/etc/resolv.conf" = { content = "nameserver 192.0.2.1\\n" }'
    return make_recipe("echo 1 >/etc/small", files=files)


@pytest.fixture(scope="session")
def small(small_recipe: Path, cache: Cache) -> Image:
    """A cheap image upon base."""
    return ensure(small_recipe, cache=cache)


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Image], Path]]:
    """Unpacks an image, for a look into it."""
    made = []

    def unpack(image: Image) -> Path:
        directory = tmp_path_factory.mktemp("unpacked")
        made.append(directory)
        command = [*AS_ROOT, "tar", "-xf", str(image.rootfs), "-C", str(directory)]
        subprocess.run([*command, "--exclude=./dev/*"], check=True)
        return directory

    yield unpack
    for directory in made:
        remove_tree(directory)


@pytest.fixture(scope="session")
def run_inside() -> Callable[[Path, str], subprocess.CompletedProcess[str]]:
    """Runs a shell script in an unpacked image, with the host's network."""

    def run(tree: Path, script: str) -> subprocess.CompletedProcess[str]:
        (tree / "etc/resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
        devices = "null random urandom zero"
        mounts = (
            f"for one in {devices}; do touch {tree}/dev/$one; "
            f"mount --bind /dev/$one {tree}/dev/$one; done; mount -t proc proc {tree}/proc"
        )
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
        return subprocess.run(
            [*AS_ROOT, *namespaces, "sh", "-ec", f'{mounts}; chroot {tree} sh -ec "{script}"'],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def nxc_test(cache: Cache) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `nxc-test image`; what is still running at the end is killed."""
    with ExitStack() as stack:

        def start(*arguments: object) -> subprocess.Popen[str]:
            main = "import sys; from nxc_testing.cli import main; sys.exit(main())"
            command = [sys.executable, "-c", main, "image", *map(str, arguments)]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start
