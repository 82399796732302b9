"""The plugin's options: one table, from which command line, environment and ini are made.

The strongest comes first: `--nxc-NAME`, `NXC_NAME` in the environment, `nxc_NAME` in the
configuration file. A list replaces a weaker one.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

TRUTH = {"1": True, "true": True, "yes": True, "on": True}
TRUTH |= {"0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Option:
    """One option in all its spellings.

    :ivar name: `x` for `--nxc-x`, `NXC_X` and `nxc_x`.
    :ivar form: what the value is.
    :ivar metavar: stands for the value in the help.
    :ivar choices: the values there are; empty if any.
    """

    name: str
    help: str
    form: Literal["text", "flag", "words", "file"] = "text"
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    default: Any = None

    @property
    def flag(self) -> str:
        """As the command line spells it."""
        return f"--nxc-{self.name}"

    @property
    def key(self) -> str:
        """As the ini spells it."""
        return f"nxc_{self.name.replace('-', '_')}"

    @property
    def variable(self) -> str:
        """As the environment spells it."""
        return self.key.upper()


TABLE = (
    Option(
        "backend",
        "what the machines are; auto is the first of docker, qemu, nspawn that this host can use,"
        " and that has what a composition needs",
        metavar="NAME",
        default="auto",
    ),
    Option(
        "role",
        "how many machines a role has, or their names; may be repeated",
        "words",
        metavar="ROLE=N|a,b",
        default=(),
    ),
    Option(
        "roles",
        "a file that maps roles to counts or lists of names; YAML if it ends in .yaml or .yml,"
        " else JSON",
        "file",
        metavar="FILE",
    ),
    Option(
        "mirror",
        "where Debian packages for images come from, if not from where this host has them",
        metavar="URL",
    ),
    Option(
        "keep",
        "leave the machines running at the end, and say how to reach and how to remove them",
        "flag",
        default=False,
    ),
    Option(
        "subtests",
        "whether a failed subtest stops the test, as in the NixOS test driver, or the test"
        " continues with what follows the subtest",
        choices=("stop", "continue"),
        default="stop",
    ),
    Option(
        "shell",
        "run all commands in this mode instead of the composition's own",
        choices=("strict", "nxc"),
    ),
    Option(
        "artifacts",
        "whether consoles, journals, commands and the event log are kept: of all tests, of none,"
        " or of those that failed",
        choices=("on", "off", "retain-on-failure"),
        default="retain-on-failure",
    ),
    Option(
        "artifacts-dir",
        "where artifacts are kept, each run's in a directory of its own",
        "file",
        metavar="DIR",
        default="nxc-artifacts",
    ),
    Option(
        "dist",
        "with pytest-xdist, what goes to one worker as a whole: a composition, or each test, so"
        " that every worker has machines of its own",
        choices=("composition", "test"),
        default="composition",
    ),
)


@dataclass(frozen=True, slots=True)
class Options:
    """The values that hold in a run; a field for every row of the table."""

    backend: str
    role: tuple[str, ...]
    roles: Path | None
    mirror: str | None
    keep: bool
    subtests: Literal["stop", "continue"]
    shell: Literal["strict", "nxc"] | None
    artifacts: Literal["on", "off", "retain-on-failure"]
    artifacts_dir: Path
    dist: Literal["composition", "test"]


def add(parser: pytest.Parser) -> None:
    """Tell pytest about the options."""
    group = parser.getgroup("nxc", "machines of nxc_testing")
    for option in TABLE:
        default = f"; default: {option.default}" if isinstance(option.default, str) else ""
        text = f"{option.help} [{option.variable}, ini: {option.key}{default}]"
        how: dict[str, Any] = {"metavar": option.metavar, "choices": option.choices or None}
        if option.form == "flag":
            how = {"action": "store_true"}
        elif option.form == "words":
            how["action"] = "append"
        group.addoption(option.flag, dest=option.key, default=None, help=text, **how)
        kinds: dict[str, Literal["bool", "args"]] = {"flag": "bool", "words": "args"}
        parser.addini(option.key, option.help, kinds.get(option.form, "string"), default=None)


def read(config: pytest.Config) -> Options:
    """The values that hold in this run.

    :raise pytest.UsageError: if one of them cannot be used; the message says where it stands.
    """
    values: dict[str, Any] = {option.name: _value(config, option) for option in TABLE}
    return Options(**{name.replace("-", "_"): value for name, value in values.items()})


def _value(config: pytest.Config, option: Option) -> object:
    here = config.invocation_params.dir
    beside_ini = config.inipath.parent if config.inipath else config.rootpath
    for where, value, base in (
        (option.flag, config.getoption(option.key), here),
        (option.variable, os.environ.get(option.variable), here),
        (option.key, config.getini(option.key), beside_ini),
        ("the default", option.default, here),
    ):
        if value is not None and value != "":
            return _converted(option, where, value, base)
    return None


def _converted(option: Option, where: str, value: object, base: Path) -> object:
    """A value in its row's form, wherever it came from.

    :param where: where it stands, for the message.
    :param base: what a file's path is relative to.
    """
    if option.choices and value not in option.choices:
        raise pytest.UsageError(f"{where}: {value!r} is none of {', '.join(option.choices)}")
    if option.form == "file":
        return base / str(value)
    if option.form == "words":
        return tuple(value) if isinstance(value, (list, tuple)) else tuple(shlex.split(str(value)))
    if option.form == "flag" and not isinstance(value, bool):
        if str(value).lower() not in TRUTH:
            raise pytest.UsageError(f"{where}: {value!r} is none of {', '.join(TRUTH)}")
        return TRUTH[str(value).lower()]
    return value
