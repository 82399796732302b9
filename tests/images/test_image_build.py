"""Images are really built: by mmdebstrap, from a mirror, one upon the other."""

from __future__ import annotations

import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nxc_testing.images import Image
from nxc_testing.images.builder import ensure
from nxc_testing.images.cache import Cache

MakeRecipe = Callable[..., Path]

FEATURES = """
[files]
"/lib/nxc/here" = { content = "through a link\\n" }
"/etc/nxc/secret" = { content = "secret", mode = "0600" }
"""

FEATURES_SCRIPT = """
echo "$(id -u) $PWD" >/etc/nxc/script
cat /lib/nxc/here >>/etc/nxc/script
if pgrep -x cron || env | grep -q -e NXC -e TOKEN; then exit 1; fi
setsid sleep 4.375 </dev/null &>/dev/null &
"""


@pytest.fixture(scope="module")
def image(small_recipe: Path, cache: Cache, make_recipe: MakeRecipe) -> Image:
    """With a service's package, files, and a script that leaves something running."""
    recipe = make_recipe(
        FEATURES_SCRIPT, packages='["cron"]', files=FEATURES, extends=str(small_recipe)
    )
    with pytest.MonkeyPatch.context() as patch:
        # The script fails if it sees that, or the service.
        patch.setenv("MY_TOKEN", "secret of the user")
        return ensure(recipe, cache=cache)


@pytest.fixture(scope="module")
def tree(image: Image, unpacked: Callable[[Image], Path]) -> Path:
    return unpacked(image)


def test_a_package_is_installed_upon_the_parents(tree: Path) -> None:
    assert (tree / "usr/sbin/cron").exists()
    assert (tree / "etc/small").exists()
    assert (tree / "lib/systemd/systemd").exists()


def test_a_script_runs_as_root_after_the_files_were_placed(tree: Path) -> None:
    assert (tree / "etc/nxc/script").read_text() == "0 /\nthrough a link\n"


def test_links_of_the_image_are_followed_and_kept(tree: Path) -> None:
    assert (tree / "lib").is_symlink()
    assert (tree / "usr/lib/nxc/here").exists()


def test_a_file_has_the_mode_that_was_asked_for(tree: Path) -> None:
    assert (tree / "etc/nxc/secret").stat().st_mode & 0o777 == 0o600


def test_what_a_script_left_running_was_stopped(image: Image) -> None:
    commands = [one.info["cmdline"] for one in psutil.process_iter(["cmdline"])]
    assert ["sleep", "4.375"] not in commands


def test_services_may_start_in_the_finished_image(tree: Path) -> None:
    assert not (tree / "usr/sbin/policy-rc.d").exists()


def test_the_hosts_resolver_is_for_the_build_only(image: Image) -> None:
    with tarfile.open(image.rootfs) as archive:
        file = archive.extractfile("./etc/resolv.conf")
        assert file
        assert file.read() == b"nameserver 192.0.2.1\n"


def test_every_machine_will_draw_its_own_identity(tree: Path) -> None:
    assert (tree / "etc/machine-id").read_bytes() == b""


def test_no_trace_of_the_host_or_the_build_is_left(image: Image, cache: Cache) -> None:
    content = image.rootfs.read_bytes()
    package, nameservers = Path(__file__).parents[2], Path("/etc/resolv.conf").read_text()
    traces = [str(cache.root), str(package), f"\n{socket.gethostname()}\n", "99nxc-build"]
    assert [trace for trace in [*traces, nameservers] if trace.encode() in content] == []


def test_the_image_can_install_more_from_its_own_sources(
    tree: Path, run_inside: Callable[[Path, str], subprocess.CompletedProcess[str]]
) -> None:
    done = run_inside(tree, "apt-get update --error-on=any; apt-get --yes install tree")
    assert (done.returncode, "W: " in done.stdout) == (0, False), done.stdout
    assert (tree / "usr/bin/tree").exists()


def test_an_image_is_built_once(small: Image, small_recipe: Path, cache: Cache) -> None:
    before = cache.find(small.digest)
    assert ensure(small_recipe, cache=cache) == small
    after = cache.find(small.digest)
    assert before
    assert after
    assert after.meta == before.meta


def test_a_second_build_gives_the_same_bytes(
    small: Image, small_recipe: Path, cache: Cache
) -> None:
    before, first = cache.find(small.digest), small.rootfs.read_bytes()
    assert ensure(small_recipe, cache=cache, rebuild=True).rootfs.read_bytes() == first
    after = cache.find(small.digest)
    assert before
    assert after
    assert after.meta.build != before.meta.build


def test_a_change_rebuilds_the_child_and_not_the_parent(
    small: Image, small_recipe: Path, base: Image, cache: Cache
) -> None:
    script = small_recipe.parent / "setup.sh"
    said: list[str] = []
    before = script.read_text()
    script.write_text(before.replace("echo 1", "echo 2"))
    try:
        changed = ensure(small_recipe, cache=cache, progress=lambda topic, _: said.append(topic))
    finally:
        script.write_text(before)
    assert changed.digest != small.digest
    assert set(said) == {f"image {small.name}"}
