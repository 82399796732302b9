"""How many machines a role has this time: said by options, or by a file of NixOS-Compose.

The strongest comes first: option, file, composition.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nxc_testing.composition.checks import check_machines
from nxc_testing.composition.model import Composition, Role
from nxc_testing.errors import ConfigError
from nxc_testing.tables import Origin, read_text, shown, suggestion

if TYPE_CHECKING:
    import yaml

OPTION = "--nxc-role"
DEFAULT_ROLE = "!DefaultRole"
FORMS = "write a number, like `node: 4`, or a list of names, like `node: [a, b]`"
YAML_CORE = "tag:yaml.org,2002:"

Count = int | tuple[str, ...]
Given = dict[str, tuple[Count, Origin]]
"""For a role how many machines or which, and who said so."""


def with_counts(
    composition: Composition,
    options: Sequence[str] = (),
    file: Path | None = None,
    *,
    option: str = OPTION,
) -> Composition:
    """Change how many machines there are.

    :param options: texts like `node=4` or `node=alpha,beta`; a later one for the same role
        replaces an earlier one. `node=0` leaves the role without a machine.
    :param file: YAML if it ends in .yaml or .yml, else JSON: for each role a number or a list
        of names.
    :param option: what the options are called, for messages.
    :return: the composition with these counts.
    :raise ConfigError: if an option or the file cannot be used, or the machines that come out
        cannot live side by side.
    """
    given: Given = {} if file is None else _from_file(file)
    for text in options:
        role, said = _from_option(option, text)
        given.pop(role, None)
        given[role] = said
    roles = {role.name: role for role in composition.roles}
    for name, (_, origin) in given.items():
        if name not in roles:
            raise origin.error(f"there is no role {shown(name)}", suggestion(name, roles))
    if not given:
        return composition
    changed = replace(
        composition,
        roles=tuple(
            _changed(role, given[role.name][0]) if role.name in given else role
            for role in composition.roles
        ),
    )
    unchanged = {
        name: Origin(f"roles.{name}", composition.source) for name in roles if name not in given
    }
    check_machines(changed, unchanged | {name: origin for name, (_, origin) in given.items()})
    return changed


def _changed(role: Role, count: Count) -> Role:
    if isinstance(count, int):
        return replace(role, count=count, hostnames=())
    return replace(role, count=len(count), hostnames=count)


def _from_option(option: str, given: str) -> tuple[str, tuple[Count, Origin]]:
    origin = Origin(f"{option} {given}")
    role, equals, text = (part.strip() for part in given.partition("="))
    if not (role and equals and text):
        raise origin.error(
            "a role and its count are wanted", f"write {option} node=4, or {option} node=a,b"
        )
    if _is_number(text.removeprefix("-")):
        return role, (_count(origin, int(text)), origin)
    return role, (_names(origin, [name.strip() for name in text.split(",")]), origin)


def _from_file(file: Path) -> Given:
    is_yaml = file.suffix in (".yaml", ".yml")
    return _from_yaml(file) if is_yaml else _from_json(file)


def _from_json(file: Path) -> Given:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                raise Origin(key, file).error("this key stands there twice")
            content[key] = value
        return content

    try:
        content = json.loads(read_text(file), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"this is not JSON: {error.msg}",
            file=file,
            key=f"line {error.lineno}, column {error.colno}",
            hint="a file whose name ends in .yaml or .yml is read as YAML",
        ) from error
    if not isinstance(content, dict):
        raise ConfigError("the file must map roles to counts", file=file, hint='write {"node": 4}')
    return {
        role: (_count(origin, value), origin)
        for role, value in content.items()
        for origin in (Origin(role, file),)
    }


def _from_yaml(file: Path) -> Given:
    """Read the graph of nodes, from which no object is made: each knows its line and tag."""
    import yaml  # noqa: PLC0415 (loaded when it is used)

    try:
        top = yaml.compose(read_text(file), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            f"this is not YAML: {getattr(error, 'problem', None) or error}",
            file=file,
            key=f"line {mark.line + 1}, column {mark.column + 1}" if mark else "",
        ) from error
    if not isinstance(top, yaml.MappingNode):
        raise ConfigError("the file must map roles to counts", file=file, hint=FORMS)
    given: Given = {}
    for key, value in top.value:
        line = f"line {key.start_mark.line + 1}"
        role = _scalar(Origin(line, file), key)
        origin = Origin(f"{line}: {role}", file)
        if role in given:
            raise origin.error("this key stands there twice")
        given[role] = (_count(origin, _plain(origin, value)), origin)
    return given


def _plain(origin: Origin, node: yaml.Node) -> object:
    """A YAML node's content: the text of a scalar as it is written, or a list of such."""
    if node.tag == DEFAULT_ROLE:
        return node.value
    if node.tag == f"{YAML_CORE}seq":
        return [_scalar(origin, item) for item in node.value]
    return _scalar(origin, node)


def _scalar(origin: Origin, node: yaml.Node) -> str:
    if isinstance(node.value, str) and node.tag.startswith(YAML_CORE) and "/" not in node.tag:
        return node.value
    raise origin.error(f"YAML's {node.tag.removeprefix(YAML_CORE)} does not fit here", FORMS)


def _count(origin: Origin, value: object) -> Count:
    """What a file or an option says of one role; numbers may be quoted, as in NixOS-Compose."""
    if isinstance(value, list):
        return _names(origin, value)
    if isinstance(value, str) and _is_number(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise origin.error(f"{shown(value)} is neither a number nor a list of names", FORMS)
    if value < 0:
        raise origin.error(f"{value} is too few", "write 0 or more")
    return value


def _names(origin: Origin, names: list[Any]) -> Count:
    """Whether they are good names is checked with those of the other roles."""
    for name in names:
        if not isinstance(name, str) or not name:
            raise origin.error(f"{shown(name)} in the list is not a name", FORMS)
    return tuple(names) or 0


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
