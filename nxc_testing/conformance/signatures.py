"""The names of the NixOS test driver, with the arguments that scripts give them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from nxc_testing.driver import Driver
from nxc_testing.machine import Machine

METHODS = {
    "execute": "command, check_return=True, check_output=True, timeout=900",
    "succeed": "*commands, timeout=None",
    "fail": "*commands, timeout=None",
    "wait_until_succeeds": "command, timeout=900",
    "wait_until_fails": "command, timeout=900",
    "wait_for_unit": "unit, user=None, timeout=900",
    "wait_for_job": "jobname",
    "get_unit_info": "unit, user=None",
    "get_unit_property": "unit, property, user=None",
    "require_unit_state": "unit, require_state='active'",
    "systemctl": "q, user=None",
    "start_job": "jobname, user=None",
    "stop_job": "jobname, user=None",
    "wait_for_file": "filename, timeout=900",
    "wait_for_open_port": "port, addr='localhost', timeout=900",
    "wait_for_closed_port": "port, addr='localhost', timeout=900",
    "wait_for_open_unix_socket": "addr, is_datagram=False, timeout=900",
    "sleep": "secs=None, duration=None",
    "copy_from_host": "source, target",
    "copy_from_host_via_shell": "source, target",
    "copy_from_machine": "source, target_dir=''",
    "copy_from_vm": "source, target_dir=''",
    "screenshot": "filename",
    "get_screen_text": "",
    "get_screen_text_variants": "",
    "wait_for_text": "regex, timeout=900",
    "wait_for_x": "timeout=900",
    "get_window_names": "",
    "wait_for_window": "regexp, timeout=900",
    "send_key": "key, delay=0.01, log=True",
    "send_chars": "chars, delay=0.01",
    "start": "allow_reboot=False",
    "shutdown": "",
    "wait_for_shutdown": "timeout=None",
    "is_up": "",
    "log": "msg",
    "log_serial": "msg",
    "nested": "msg, attrs=None",
    "run_callbacks": "",
    "cleanup_statedir": "",
    "release": "",
    "ssh_backdoor_command": "",
    "crash": "",
    "reboot": "",
    "block": "",
    "unblock": "",
    "forward_port": "host_port=8080, guest_port=80",
    "send_monitor_command": "command",
    "wait_for_monitor_prompt": "",
    "wait_for_qmp_event": "event_filter, timeout=600",
    "wait_for_console_text": "regex, timeout=None",
    "get_console_log": "",
    "get_tty_text": "tty",
    "wait_until_tty_matches": "tty, regexp, timeout=900",
    "dump_tty_contents": "tty",
    "send_console": "chars",
    "console_interact": "",
    "shell_interact": "address=None",
    "switch_root": "",
    "connect": "",
    "create_efi_vars": "",
    "read_efi_vars": "",
    "write_efi_vars": "add",
    "dump_efi_vars": "",
}
"""Methods of every machine, as upstream documents them; durations in seconds."""

ATTRIBUTES = (
    *("name", "out_dir", "tmp_dir", "state_dir", "logger", "callbacks"),
    *("keep_machine_state", "keep_vm_state", "booted", "connected", "last_lines"),
)

FUNCTIONS = {
    "start_all": "",
    "join_all": "",
    "subtest": "name",
    "retry": "fn, timeout_seconds=None, timeout=None",
    "polling_condition": "fun_=None, *, seconds_interval=None, interval=None, description=None",
    "create_machine": "start_command, *, name=None, keep_machine_state=False",
    "serial_stdout_on": "",
    "serial_stdout_off": "",
    "test_script": "",
    "run_tests": "",
    "dump_machine_ssh": "",
}
"""Functions among a testScript's globals."""


def expected(arguments: str) -> inspect.Signature:
    """A signature from how a `def` writes it."""
    (function,) = ast.parse(f"def f({arguments}): ...").body
    assert isinstance(function, ast.FunctionDef)
    found = function.args
    kind = inspect.Parameter
    parameters = []
    defaults: list[ast.expr | None] = [None] * (len(found.args) - len(found.defaults))
    for argument, default in zip(found.args, [*defaults, *found.defaults], strict=True):
        value = ast.literal_eval(default) if default else kind.empty
        parameters.append(kind(argument.arg, kind.POSITIONAL_OR_KEYWORD, default=value))
    if found.vararg:
        parameters.append(kind(found.vararg.arg, kind.VAR_POSITIONAL))
    for argument, default in zip(found.kwonlyargs, found.kw_defaults, strict=True):
        assert default is not None
        value = ast.literal_eval(default)
        parameters.append(kind(argument.arg, kind.KEYWORD_ONLY, default=value))
    return inspect.Signature(parameters)


def differences(function: Callable[..., Any], arguments: str) -> list[str]:
    """What a caller who knows upstream's signature would stumble over.

    A function may have more parameters than upstream's, behind them and with defaults.
    """
    ours = list(inspect.signature(function).parameters.values())
    theirs = list(expected(arguments).parameters.values())
    found = []
    for place, wanted in enumerate(theirs):
        own = next((p for p in ours if p.name == wanted.name), None)
        if own is None:
            found.append(f"no parameter {wanted.name}")
            continue
        if own.kind is not wanted.kind:
            found.append(f"{own.name} is {own.kind.description}, not {wanted.kind.description}")
        if wanted.kind is not wanted.KEYWORD_ONLY and ours.index(own) != place:
            found.append(f"{own.name} is number {ours.index(own) + 1}, not {place + 1}")
        if in_seconds(own.default) != wanted.default:
            found.append(f"{own.name} is {own.default!r} by default, not {wanted.default!r}")
    names = {parameter.name for parameter in theirs}
    found += [
        f"{own.name} is asked for"
        for own in ours
        if own.name not in names and own.default is own.empty
    ]
    return found


def in_seconds(default: object) -> object:
    """A duration in seconds; anything else as it is."""
    return default.total_seconds() if isinstance(default, timedelta) else default


class TestSignatures:
    @pytest.mark.parametrize("name", METHODS)
    def test_a_method_is_called_as_upstreams(self, machine: Machine, name: str) -> None:
        assert differences(getattr(machine, name), METHODS[name]) == []

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_a_function_is_called_as_upstreams(self, driver: Driver, name: str) -> None:
        function = driver.symbols()[name]
        assert callable(function)
        assert differences(function, FUNCTIONS[name]) == []

    @pytest.mark.parametrize("name", ATTRIBUTES)
    def test_an_attribute_is_there(self, machine: Machine, name: str) -> None:
        getattr(machine, name)

    def test_there_is_no_method_of_upstreams_that_the_suite_does_not_know(self) -> None:
        """What is public and not upstream's is documented as this project's own."""
        own = {
            *("freeze", "thaw", "interact", "interact_console"),
            *("look", "run", "seen_by", "transfer", "wait"),
            "wait_for_unit_active_state",
        }
        public = {
            name
            for name, value in inspect.getmembers(Machine)
            if not name.startswith("_") and callable(value)
        }
        assert public == set(METHODS) | own
