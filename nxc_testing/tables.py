"""Typed access to the tables of a configuration file; every complaint names file and key."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from nxc_testing.errors import ConfigError

T = TypeVar("T")
D = TypeVar("D")

WANTED = {
    str: 'a string, like "text"',
    int: "an integer, like 2",
    bool: "true or false",
    list: 'an array, like ["a", "b"]',
    dict: "a table",
}
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
TOML_POSITION = re.compile(r" \(at (?P<where>[^()]+)\)$")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where something was said: a key of a file, or an option.

    :ivar key: the key's path, like `roles.node.count`, or the option's text.
    :ivar file: None for an option.
    """

    key: str
    file: Path | None = None

    def at(self, key: str | int) -> Origin:
        """The origin of a key of this table, or of an element of this array."""
        if isinstance(key, int):
            return Origin(f"{self.key}[{key}]", self.file)
        name = key if BARE_KEY.fullmatch(key) else json.dumps(key)
        return Origin(f"{self.key}.{name}" if self.key else name, self.file)

    def error(self, problem: str, hint: str = "") -> ConfigError:
        """The error to raise for what was said here."""
        return ConfigError(problem, file=self.file, key=self.key, hint=hint)


class Table:
    """One table of a file.

    :ivar origin: where it stands.
    :ivar data: its content; empty for a table that the file does not have.
    """

    def __init__(self, origin: Origin, data: Mapping[str, Any], known: Collection[str] = ()):
        """Take a table and refuse keys that mean nothing.

        :param known: the keys that it may have; empty for a table whose keys are free names.
        :raise ConfigError: for any other key.
        """
        self.origin, self.data = origin, data
        for key in data if known else ():
            if key not in known:
                raise origin.at(key).error("this key means nothing here", suggestion(key, known))

    def at(self, key: str) -> Origin:
        """The origin of one of its keys, to complain of its value."""
        return self.origin.at(key)

    @overload
    def get(self, key: str, kind: type[T]) -> T | None: ...
    @overload
    def get(self, key: str, kind: type[T], default: D) -> T | D: ...
    def get(self, key: str, kind: type[T], default: D | None = None) -> T | D | None:
        """The value of a key, or the default if the key is absent.

        :raise ConfigError: if it is of another type.
        """
        if key not in self.data:
            return default
        return of_type(self.at(key), self.data[key], kind)

    def require(self, key: str, kind: type[T]) -> T:
        """The value of a key that must be there.

        :raise ConfigError: if it is absent or of another type.
        """
        if key not in self.data:
            raise self.at(key).error("this key is missing", f"it takes {WANTED[kind]}")
        return of_type(self.at(key), self.data[key], kind)

    def elements(self, key: str, kind: type[T]) -> list[tuple[Origin, T]]:
        """The elements of an array, each with its origin; nothing if the key is absent.

        :raise ConfigError: if an element is of another type or stands there twice, or if the
            array is there and empty.
        """
        if key not in self.data:
            return []
        origin = self.at(key)
        values = of_type(origin, self.data[key], list)
        if not values:
            raise origin.error("the array is empty", "leave the key out for the default")
        for place, value in enumerate(values):
            of_type(origin.at(place), value, kind)
            if value in values[:place]:
                raise origin.at(place).error(f"{shown(value)} stands there twice")
        return [(origin.at(place), value) for place, value in enumerate(values)]

    def array(self, key: str, kind: type[T]) -> tuple[T, ...]:
        """The elements of an array, as `elements` checks them."""
        return tuple(value for _, value in self.elements(key, kind))

    def references(self, key: str, names: Collection[str], what: str) -> tuple[str, ...]:
        """The elements of an array of names of things defined elsewhere.

        :param names: what is defined.
        :param what: what they are, in words, like `a role`.
        :raise ConfigError: as `elements`, and for a name that is not defined.
        """
        found = self.elements(key, str)
        for origin, name in found:
            if name not in names:
                raise origin.error(
                    f"{shown(name)} is not the name of {what}", suggestion(name, names)
                )
        return tuple(name for _, name in found)

    def table(self, key: str, known: Collection[str] = ()) -> Table:
        """A table in this one; empty if it is absent."""
        return Table(self.at(key), self.get(key, dict, {}), known)

    def tables(self, key: str, known: Collection[str] = ()) -> dict[str, Table]:
        """Tables by their names, in the order of the file."""
        outer = self.table(key)
        return {
            name: Table(outer.at(name), of_type(outer.at(name), value, dict), known)
            for name, value in outer.data.items()
        }


def of_type(origin: Origin, value: object, kind: type[T]) -> T:
    """A value, if it is of the type that is wanted here.

    :raise ConfigError: if it is not.
    """
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise origin.error(f"{shown(value)} does not fit here", f"it takes {WANTED[kind]}")


def shown(value: object, width: int = 60) -> str:
    """A value as an error message shows it: on one line, and not all of it if it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def suggestion(word: str, known: Collection[str]) -> str:
    """A hint for a word that is not known: the most similar one, and all there are."""
    close = difflib.get_close_matches(word, known, n=1)
    all_of_them = f"known: {', '.join(known)}" if known else "there is none"
    return f"did you mean {close[0]}? {all_of_them}" if close else all_of_them


def read_text(file: Path) -> str:
    """The text of a configuration file.

    :raise ConfigError: if it cannot be read, or is not UTF-8.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file) from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8 text", file=file, key=f"line {line}") from error


def read_toml(file: Path) -> dict[str, Any]:
    """The content of a TOML file.

    :raise ConfigError: with the line, if it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        position = TOML_POSITION.search(message)
        raise ConfigError(
            TOML_POSITION.sub("", message),
            file=file,
            key=position["where"] if position else "",
            hint="the file must be TOML 1.0 (https://toml.io)",
        ) from error
