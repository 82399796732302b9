"""Image recipes: what they may say, and the digest of everything that makes an image."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from nxc_testing.tables import Origin, Table, read_toml, shown, suggestion

BUILDER = 2
"""Raised whenever the builder makes something else of the same recipe."""

BUILT_IN = Path(__file__).with_name("recipes")

NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
SUITE = re.compile(r"[a-z][a-z0-9.-]*")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?(?:[=/][A-Za-z0-9.+:~-]+)?")
MODE = re.compile(r"0?[0-7]{3,4}")
UNITS = ("needed", "all")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symbolic link to place in the image; all belong to root.

    :ivar target: absolute path in the image.
    :ivar type: `file`, `directory` or `link`.
    :ivar mode: permission bits.
    :ivar source: where a file's content is, unless it stands in `content`.
    :ivar content: a file's content, or what a link points to.
    """

    target: str
    type: str
    mode: int
    source: Path | None = None
    content: bytes = b""

    def sha256(self) -> str:
        """The digest of the content."""
        if self.source is None:
            return hashlib.sha256(self.content).hexdigest()
        with self.source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is made.

    :ivar name: fit for the name of a Docker repository.
    :ivar path: the file it stands in.
    :ivar parent: what it builds upon; None if it starts from nothing.
    :ivar suite: Debian's code name for the release, the parent's if there is one.
    :ivar packages: sorted.
    :ivar entries: placed after the packages were installed, before the scripts run.
    :ivar scripts: run as root in the image, in this order.
    :ivar units: what a virtual machine boots of the units that are installed: those that a test
        may need, or `all`.
    :ivar digest: in hex, of everything above but the path, and of the builder's version and
        the machine's architecture. Neither mirror nor time stamps are in it.
    """

    name: str
    path: Path
    parent: Recipe | None
    suite: str
    packages: tuple[str, ...]
    entries: tuple[Entry, ...]
    scripts: tuple[Path, ...]
    units: str = "needed"
    digest: str = ""

    def chain(self) -> Iterator[Recipe]:
        """The recipe, its parent, and so on."""
        recipe: Recipe | None = self
        while recipe is not None:
            yield recipe
            recipe = recipe.parent


def built_in() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def load(recipe: Path | str) -> Recipe:
    """Read a recipe and those it extends.

    :param recipe: the name of a built-in recipe, a file, or a directory with an `image.toml`.
    :return: the recipe with its digest.
    :raise ConfigError: if it cannot be used as it stands.
    """
    return _load(locate(recipe), ())


def locate(recipe: Path | str, *, named: Origin | None = None) -> Path:
    """The file of a recipe.

    :param recipe: as `load` takes it.
    :param named: where another recipe names it, whose file its path is relative to.
    :raise ConfigError: if there is none.
    """
    origin = named or Origin("image recipe")
    text = str(recipe)
    if isinstance(recipe, str) and "/" not in text and not text.endswith(".toml"):
        candidate = BUILT_IN / f"{text}.toml"
        if candidate.is_file():
            return candidate
        if named or not Path(text).is_dir():
            raise origin.error(
                f"{shown(text)} is not the name of a built-in recipe",
                f"{suggestion(text, built_in())}; the name of a file ends with .toml",
            )
    path = (named.file.parent if named and named.file else Path.cwd()) / recipe
    if path.is_dir():
        path /= "image.toml"
    if not path.is_file():
        raise origin.error(f"there is no file {path}")
    return path.resolve()


def _load(path: Path, seen: tuple[Path, ...]) -> Recipe:
    top = Table(Origin("", path), read_toml(path), ("image", "files", "vm"))
    image = top.table("image", ("name", "extends", "suite", "packages", "scripts"))
    parent = None
    if extends := image.get("extends", str):
        file = locate(extends, named=image.at("extends"))
        if file in (seen := (*seen, path)):
            circle = " -> ".join(str(one) for one in (*seen[seen.index(file) :], file))
            raise image.at("extends").error("the recipe extends itself", f"the circle: {circle}")
        parent = _load(file, seen)
    recipe = Recipe(
        name=_name(image, path),
        path=path,
        parent=parent,
        suite=_suite(image, parent),
        packages=_packages(image),
        entries=tuple(_entries(top.table("files"), path.parent)),
        scripts=tuple(_scripts(image, path.parent)),
        units=_units(top.table("vm", ("units",)), parent),
    )
    return replace(recipe, digest=_digest(recipe))


def _digest(recipe: Recipe) -> str:
    parts = {
        "builder": BUILDER,
        "machine": platform.machine(),
        "name": recipe.name,
        "parent": recipe.parent.digest if recipe.parent else None,
        "suite": recipe.suite,
        "packages": recipe.packages,
        "entries": [[e.target, e.type, e.mode, e.sha256()] for e in recipe.entries],
        "units": recipe.units,
        "scripts": [hashlib.sha256(script.read_bytes()).hexdigest() for script in recipe.scripts],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _name(image: Table, path: Path) -> str:
    name = image.get("name", str, path.parent.name)
    if not NAME.fullmatch(name):
        raise image.at("name").error(
            f"{shown(name)} cannot name an image",
            "it takes lower-case letters and digits, joined by single dots, dashes or underscores"
            + ("" if "name" in image.data else "; the default is the directory's name"),
        )
    return name


def _suite(image: Table, parent: Recipe | None) -> str:
    suite = image.get("suite", str, parent.suite if parent else "")
    if not suite:
        raise image.at("suite").error(
            "this key is missing", 'say what to start from: suite = "bookworm", or extends = "base"'
        )
    if not SUITE.fullmatch(suite):
        raise image.at("suite").error(f"{shown(suite)} is not the code name of a Debian release")
    if parent and suite != parent.suite:
        raise image.at("suite").error(
            f"{shown(suite)} differs from the suite of {parent.name}, which the recipe extends",
            "leave the key out",
        )
    return suite


def _packages(image: Table) -> tuple[str, ...]:
    packages = image.elements("packages", str)
    for origin, package in packages:
        if not PACKAGE.fullmatch(package):
            raise origin.error(f"{shown(package)} is not the name of a package")
    return tuple(sorted(package for _, package in packages))


def _scripts(image: Table, base: Path) -> Iterator[Path]:
    for origin, name in image.elements("scripts", str):
        script = base / name
        if not script.is_file():
            raise origin.error(f"there is no file {script}")
        if not os.access(script, os.X_OK):
            raise origin.error(f"{name} is not executable", f"chmod +x {script}")
        with script.open("rb") as file:
            if file.read(2) != b"#!":
                raise origin.error(
                    f"{name} does not start with `#!`",
                    "its first line names its interpreter, like `#!/bin/bash -eu`",
                )
        yield script


def _units(vm: Table, parent: Recipe | None) -> str:
    units = vm.get("units", str, parent.units if parent else UNITS[0])
    if units not in UNITS:
        raise vm.at("units").error(
            f"{shown(units)} is no choice of units", f"it is one of: {', '.join(UNITS)}"
        )
    return units


def _entries(files: Table, base: Path) -> Iterator[Entry]:
    for target in sorted(files.data):
        entry = files.table(target, ("source", "content", "mode"))
        path = PurePosixPath(target)
        if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
            raise entry.origin.error("this is not an absolute path in the image")
        if ("source" in entry.data) == ("content" in entry.data):
            raise entry.origin.error("it takes either `source` or `content`")
        mode = _mode(entry)
        if "content" in entry.data:
            content = entry.require("content", str).encode()
            yield Entry(str(path), "file", 0o644 if mode is None else mode, content=content)
            continue
        source = base / entry.require("source", str)
        if source.is_file():
            mode = _mode_of(source) if mode is None else mode
            yield Entry(str(path), "file", mode, source=source)
        elif source.is_dir():
            if mode is not None:
                raise entry.at("mode").error("the files of a directory keep their own modes")
            yield from _tree(entry.at("source"), source, path)
        else:
            raise entry.at("source").error(f"there is no file or directory {source}")


def _tree(origin: Origin, source: Path, target: PurePosixPath) -> Iterator[Entry]:
    yield Entry(str(target), "directory", 0o755)
    for path in sorted(source.iterdir()):
        inside = target / path.name
        if path.is_symlink():
            yield Entry(str(inside), "link", 0o777, content=os.fsencode(os.readlink(path)))
        elif path.is_dir():
            yield from _tree(origin, path, inside)
        elif path.is_file():
            yield Entry(str(inside), "file", _mode_of(path), source=path)
        else:
            raise origin.error(f"{path} is neither a file, a directory nor a symbolic link")


def _mode(entry: Table) -> int | None:
    mode = entry.get("mode", str)
    if mode is None:
        return None
    if not MODE.fullmatch(mode):
        raise entry.at("mode").error(f"{shown(mode)} is not a file's mode", 'like "0644", in octal')
    return int(mode, 8)


def _mode_of(path: Path) -> int:
    return 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
