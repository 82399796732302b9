"""Runs a testScript: a Python file whose globals are the driver's.

Tracebacks show the script's real file and lines. The script is loaded by Python's import system
under a module name of its own, so that whoever watches imports (pytest rewrites assertions that
way) sees it; each run reads the file anew, and nothing is cached beside it by us.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.abc
import importlib.util
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import TYPE_CHECKING, ClassVar

from nxc_testing.compat import upstream_modules
from nxc_testing.errors import TestScriptError
from nxc_testing.events import Event, MachineStarted, WaitStarted

if TYPE_CHECKING:
    from nxc_testing.composition import TestScript
    from nxc_testing.driver import Driver

__tracebackhide__ = True

PACKAGE = "nxc_testscripts"
PLACE = "<nxc_testing testScripts>"
BAD_ESCAPE = ".*invalid (octal )?escape sequence"


def check(script: TestScript) -> ast.Module:
    """Read a script and see that it can run.

    :return: the parsed script.
    :raise TestScriptError: if it is missing, is not Python, or has no statement although the
        composition does not say that this is meant.
    """
    try:
        source = script.file.read_bytes()
    except OSError as error:
        raise TestScriptError(f"cannot be read: {error.strerror}", file=script.file) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, str(script.file))
    except SyntaxError as error:
        raise TestScriptError(
            f"this is not Python: {error.msg}",
            file=script.file,
            key=f"line {error.lineno}",
            hint=(error.text or "").strip(),
        ) from error
    except ValueError as error:
        raise TestScriptError(f"this is not Python: {error}", file=script.file) from error
    if is_empty(tree) and not script.allow_empty:
        raise TestScriptError(
            "the testScript is empty: it would test nothing",
            file=script.file,
            hint="write one, or set `allow_empty = true` in [test_script] if this is meant",
        )
    return tree


def is_empty(tree: ast.Module) -> bool:
    """Whether nothing stands in a script but comments, strings and `pass`."""
    return all(
        isinstance(node, ast.Pass)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in tree.body
    )


def run(script: TestScript, driver: Driver, prepare: Callable[[str], None] | None = None) -> None:
    """Run a script on a driver's machines.

    :param prepare: told the name of the script's module before it is imported.
    :raise TestScriptError: if the script cannot run, or used no machine although the composition
        does not say that it may be empty.
    :raise BaseException: what the script raises, with a traceback that starts in the script.
    """
    check(script)
    signs: list[Event] = []

    def note(event: Event) -> None:
        if isinstance(event, (MachineStarted, WaitStarted)):
            signs.append(event)

    unsubscribe = driver.session.events.subscribe(note)
    commands = driver.commands_run
    try:
        with upstream_modules(driver):
            execute(script.file, driver.symbols(), prepare)
    finally:
        unsubscribe()
    if driver.commands_run == commands and not signs and not script.allow_empty:
        raise TestScriptError(
            "the testScript ran no command and started no machine: it tested nothing",
            file=script.file,
            hint="set `allow_empty = true` in [test_script] if this is meant",
        )


def execute(
    file: Path, symbols: Mapping[str, object], prepare: Callable[[str], None] | None = None
) -> None:
    """Execute a file with some globals, as the module of that file.

    :param symbols: the globals it finds.
    :param prepare: told the module's name before it is imported.
    :raise BaseException: what the file raises, with a traceback that starts in the file.
    """
    name = module_name(file)
    with _importable(name, file):
        if prepare is not None:
            prepare(name)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        vars(module).update(symbols)
        sys.modules[name] = module
        try:
            with _bad_escapes_warn():
                spec.loader.exec_module(module)
        except BaseException as error:
            error.__traceback__ = _from_file_on(error.__traceback__, file)
            raise
        finally:
            del sys.modules[name]


def module_name(file: Path) -> str:
    """The name of a script's module: it tells scripts of one name in two places apart."""
    place = hashlib.sha256(str(file).encode()).hexdigest()[:8]
    stem = re.sub(r"\W", "_", f"{file.parent.name}_{file.stem}")
    return f"{PACKAGE}.{stem}_{place}"


def unreached(script: TestScript, error: BaseException) -> str:
    """What of a script was not reached when an error ended it.

    :param error: what the script raised.
    :return: like `lines 12 to 40, with the subtests 'b', 'c'`; empty if nothing is left.
    """
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == str(script.file) and frame.f_code.co_name == "<module>"
    ]
    if not lines:
        return ""
    try:
        tree = check(script)
    except TestScriptError:  # it was changed meanwhile
        return ""
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    current = [node for node in statements if node.lineno <= lines[-1] <= _last_line(node)]
    reached = min(map(_last_line, current), default=lines[-1])
    rest = [node for node in statements if node.lineno > reached]
    if not rest:
        return ""
    first, last = min(node.lineno for node in rest), max(map(_last_line, rest))
    span = f"line {first}" if first == last else f"lines {first} to {last}"
    names = [name for line, name in _subtests(tree) if line > reached]
    plural = "s" if len(names) > 1 else ""
    return span + (f", with the subtest{plural} {', '.join(map(repr, names))}" if names else "")


def _last_line(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _subtests(tree: ast.Module) -> list[tuple[int, str]]:
    """The subtests whose names stand in a script, with their lines, in order."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="subtest") | ast.Attribute(attr="subtest"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                found.append((node.lineno, name))
    return sorted(found)


def _from_file_on(tb: TracebackType | None, file: Path) -> TracebackType | None:
    """A traceback without what stands before a file's first frame; whole if it has none."""
    here = tb
    while here is not None and here.tb_frame.f_code.co_filename != str(file):
        here = here.tb_next
    return here or tb


@contextmanager
def _bad_escapes_warn() -> Iterator[None]:
    r"""Let an escape like `\$`, common in scripts full of shell, never be an error."""
    with warnings.catch_warnings():
        for category in (SyntaxWarning, DeprecationWarning):
            warnings.filterwarnings("default", BAD_ESCAPE, category)
        yield


class _Loader(SourceFileLoader):
    """Compiles the file as it is now, and keeps no bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


class _Finder(importlib.abc.PathEntryFinder):
    """Finds the scripts that are being run; installed as a path hook for the place of scripts.

    It stands behind the standard path finder, because that is the one whom pytest asks.
    """

    files: ClassVar[dict[str, Path]] = {}

    def __init__(self, place: str):
        if place != PLACE:
            raise ImportError(place)

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        file = self.files.get(fullname)
        if file is None:
            return None
        loader = _Loader(fullname, str(file))
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


@contextmanager
def _importable(name: str, file: Path) -> Iterator[None]:
    """Let a module name lead to a file, whatever the file is called."""
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [PLACE]
        sys.modules[PACKAGE] = package
        sys.path_hooks.append(_Finder)
    _Finder.files[name] = file
    try:
        yield
    finally:
        del _Finder.files[name]
