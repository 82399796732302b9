"""`nxc-test image`: build, list and remove the images of machines."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

from nxc_testing.cli.text import DAY, age, print_table
from nxc_testing.errors import BackendUnavailable

if TYPE_CHECKING:
    import docker

    from nxc_testing.cli import Commands
    from nxc_testing.images.cache import Cache

UNUSED_DAYS = 30


def register(commands: Commands) -> None:
    """Add this command to the command line."""
    image = commands.add_parser("image", help="build, list and remove images")
    actions = image.add_subparsers(title="actions", metavar="ACTION", required=True)

    build = actions.add_parser("build", help="build images, and what they extend")
    build.add_argument(
        "recipes",
        metavar="RECIPE",
        nargs="+",
        help="a file, a directory with an image.toml, or the name of a built-in recipe",
    )
    build.add_argument("--mirror", metavar="URL", help="a mirror of Debian; default: the host's")
    build.add_argument(
        "--rebuild", action="store_true", help="build again, to have today's packages"
    )
    build.add_argument("--backend", choices=["docker"], help="also hand them to this backend")
    build.set_defaults(run=build_images)

    listing = actions.add_parser("list", help="show the images in the cache")
    listing.set_defaults(run=list_images)

    prune = actions.add_parser(
        "prune",
        help=f"remove images that were not used for {UNUSED_DAYS} days",
        description="Removes images from the cache that were not used for some days, what dead "
        "builds left, what was unpacked for nspawn, and from Docker what came from images that are "
        "gone. What a machine uses, or somebody is building, stays.",
    )
    prune.add_argument(
        "--days",
        type=float,
        default=UNUSED_DAYS,
        help="keep what was used in the last DAYS days (default: %(default)s)",
    )
    prune.add_argument("--all", action="store_true", help="the same as --days 0")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    prune.set_defaults(run=prune_images)


def build_images(options: argparse.Namespace) -> int:
    """`nxc-test image build`."""
    from nxc_testing.images.builder import ensure  # noqa: PLC0415

    engine = _connect() if options.backend == "docker" else None
    for recipe in options.recipes:
        image = ensure(recipe, mirror=options.mirror, progress=_say, rebuild=options.rebuild)
        where = str(image.rootfs)
        if engine:
            from nxc_testing.images.docker import into_docker  # noqa: PLC0415

            where = into_docker(engine, image, _say)
        print(f"{image.name} {image.digest[:12]} {where}")
    return 0


def list_images(options: argparse.Namespace) -> int:
    """`nxc-test image list`."""
    from nxc_testing.images.cache import Cache  # noqa: PLC0415

    cache, engine = Cache(), _engine()
    states = _engine_states(engine, cache) if engine else {}
    rows = [("NAME", "DIGEST", "SIZE", "PACKAGES", "BUILT", "USED", "DOCKER")]
    for one in cache.all():
        meta = one.meta
        rows.append(
            (
                meta.name,
                meta.digest[:12],
                f"{meta.size / 1e6:.0f} MB",
                str(meta.packages),
                f"{age(meta.built_at)} ago",
                f"{age(one.used_at)} ago",
                states.get(meta.digest, "-") if engine else "?",
            )
        )
    print_table(rows)
    return 0


def prune_images(options: argparse.Namespace) -> int:
    """`nxc-test image prune`."""
    from nxc_testing.backends.qemu.removal import images_in_use  # noqa: PLC0415
    from nxc_testing.images.cache import Cache, remove_tree  # noqa: PLC0415

    cache, engine = Cache(), _engine()
    verb = "would remove" if options.dry_run else "removed"
    for leftover in cache.leftovers():
        if not options.dry_run:
            remove_tree(leftover)
        print(f"{verb} {leftover} (left by a build that was cut off)")
    gone, booted = set(), images_in_use()
    limit = time.time() - (0 if options.all else options.days * DAY)
    for one in cache.all():
        meta = one.meta
        if one.directory in booted:
            print(f"{meta.name} {meta.digest[:12]} stays: a virtual machine boots it")
        elif one.used_at <= limit and (options.dry_run or cache.remove(meta.digest)):
            gone.add(meta.digest)
            print(f"{verb} {meta.name} {meta.digest[:12]} ({meta.size / 1e6:.0f} MB)")
    _prune_roots(cache, gone, options.dry_run)
    if engine:
        _prune_engine(engine, cache, gone, options.dry_run)
    else:
        print("no Docker engine answers: what was imported there stays", file=sys.stderr)
    return 0


def _prune_roots(cache: Cache, gone: set[str], dry_run: bool) -> None:
    from nxc_testing.backends.nspawn.removal import roots_in_use  # noqa: PLC0415
    from nxc_testing.images import roots  # noqa: PLC0415

    for root in list(roots.disused(cache, roots_in_use(), gone)):
        if dry_run or roots.remove(cache, root):
            print(f"{'would remove' if dry_run else 'removed'} {root} (unpacked for nspawn)")


def _prune_engine(engine: docker.DockerClient, cache: Cache, gone: set[str], dry_run: bool) -> None:
    from docker.errors import APIError, ImageNotFound  # noqa: PLC0415

    from nxc_testing.images.docker import imported  # noqa: PLC0415

    for image, digest, used in list(imported(engine, cache)):
        # Looked up now: somebody may have built it since the images were listed.
        if image.tags and digest not in gone and cache.find(digest, use=False):
            continue
        name = ", ".join(image.tags) or image.short_id
        if used:
            print(f"{name} stays in Docker: a container uses it")
            continue
        try:
            if not dry_run:
                engine.images.remove(str(image.id))
        except ImageNotFound:
            continue
        except APIError as error:
            # Since the look above a container may have been made of it.
            print(f"{name} stays in Docker: {error.explanation}")
            continue
        print(f"{'would remove' if dry_run else 'removed'} {name} from Docker")


def _engine_states(engine: docker.DockerClient, cache: Cache) -> dict[str, str]:
    from nxc_testing.images.docker import imported  # noqa: PLC0415

    states: dict[str, str] = {}
    for _, digest, used in imported(engine, cache):
        if used or digest not in states:
            states[digest] = "in use" if used else "imported"
    return states


def _engine() -> docker.DockerClient | None:
    try:
        return _connect()
    except BackendUnavailable:
        return None


def _connect() -> docker.DockerClient:
    from nxc_testing.backends.docker.engine import Engine  # noqa: PLC0415

    with closing(Engine()) as engine:
        return engine.connect()


def _say(topic: str, message: str) -> None:
    print(f"{topic}: {message}", file=sys.stderr, flush=True)
