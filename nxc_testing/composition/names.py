"""The names that machines may have: on the network, and as globals and fixtures of tests."""

from __future__ import annotations

import keyword
import re

from nxc_testing.tables import Origin, shown

PYTEST_FIXTURES = frozenset(
    # As text: one word a line would hide what belongs together.
    """
    LineMatcher cache capfd capfdbinary caplog capsys capsysbinary capteesys doctest_namespace
    linecomp monkeypatch pytestconfig pytester record_property record_testsuite_property
    record_xml_attribute recwarn request subtests testdir testrun_uid tmp_path tmp_path_factory
    tmpdir tmpdir_factory worker_id
    """.split()  # noqa: SIM905
)
"""Fixtures of pytest and of pytest-xdist."""

SCRIPT_GLOBALS = frozenset(
    """
    BaseMachine Machine NspawnMachine QemuMachine composition create_machine debug driver
    dump_machine_ssh join_all json log machines machines_nspawn machines_qemu make_command os
    pathlib polling_condition re retry run_tests serial_stdout_off serial_stdout_on start_all
    subtest t test_script time vlans
    """.split()  # noqa: SIM905
)
"""What a testScript finds beside its machines. A machine called `machine` is as good as any."""

VLAN = re.compile(r"vlan[0-9]+")
LOCAL_NAMES = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def python_name(host: str) -> str:
    """A host's name as tests spell it: `my-node` is `my_node`.

    The rule is the NixOS test driver's.
    """
    return re.sub(r"^[^A-Za-z_]|[^A-Za-z0-9_]", "_", host)


def check_name(name: str, origin: Origin) -> None:
    """See that a machine or a role may have this name.

    :param origin: who gave it.
    :raise ConfigError: if it is no host name (RFC 1123), or means something else in tests.
    """
    if not LABEL.fullmatch(name):
        hyphens = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:63].rstrip("-")
        raise origin.error(
            f"{shown(name)} cannot be a host name",
            "a host name has at most 63 letters, digits and hyphens, and no hyphen at either end"
            + (f', like "{hyphens}"' if hyphens else ""),
        )
    if name.isdecimal():
        raise origin.error(
            f"{shown(name)} cannot be a host name: digits alone read as an address",
            f'put a letter to it, like "n{name}"',
        )
    meaning = _other_meaning(name)
    if meaning:
        raise origin.error(
            f"{shown(name)} cannot be the name of a machine: {meaning}",
            f'choose another, like "{name}-host"',
        )


def _other_meaning(name: str) -> str:
    """What a name stands for already; empty if nothing."""
    spelled = python_name(name)
    if name.lower() in LOCAL_NAMES:
        return "every host calls itself so"
    if keyword.iskeyword(spelled):
        return f"`{spelled}` is a Python keyword"
    if spelled in PYTEST_FIXTURES:
        return f"it would shadow the pytest fixture `{spelled}`"
    if spelled in SCRIPT_GLOBALS or VLAN.fullmatch(spelled):
        return f"it would shadow `{spelled}`, which tests and testScripts have from the driver"
    return ""
