"""Start scripts: programs that make and start a machine by the NixOS test driver's contract."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from nxc_testing.composition import Composition, Instance, Plan, Role
from nxc_testing.errors import ConfigError

NIXOS = "192.168.{}.0/24"
"""The subnet of the VLAN of a number, in all tests of NixOS."""

KINDS = {"nspawn": "nspawn", "vm": "qemu"}
"""The kinds of machines that scripts start, by the ends of their names, and who runs them."""


def script_of(composition: Composition, instance: Instance, kind: str) -> Path:
    """A machine's start script.

    :param kind: of the machines that the caller can start.
    :raise ConfigError: if there is no such program, or it starts another kind.
    """
    script = Path(instance.role.start_script.replace("{name}", instance.name))
    form = re.fullmatch(r"run-.+-(\w+)", script.name)
    if form is None or form[1] != kind:
        other = KINDS.get(form[1]) if form else None
        hint = f"backend {other} runs it" if other else "NixOS calls them so"
        problem = f"{script} is not called run-NAME-{kind}"
        raise _error(composition, instance.role, problem, hint)
    if not os.access(script, os.X_OK) or script.is_dir():
        hint = "make it executable" if script.is_file() else "build it first"
        raise _error(composition, instance.role, f"{script} is no program", hint)
    return script


def check(composition: Composition, instance: Instance, kind: str, unknown: Sequence[str]) -> None:
    """See that a machine's start script can be used, as far as that can be known before.

    :param kind: see `script_of`.
    :param unknown: keys of a role that such scripts know nothing of.
    :raise ConfigError: if not: what the script would not do is not asked of it.
    """
    role = instance.role
    script_of(composition, instance, kind)
    given = [key for key in unknown if getattr(role, key)]
    given += [
        f"volumes.{volume.name}"
        for volume in composition.volumes
        if not volume.roles or role.name in volume.roles
    ]
    if given:
        raise ConfigError(
            f"it has a start script, which knows nothing of {', '.join(given)}",
            file=composition.source,
            key=f"roles.{role.name}",
            hint="let the script see to it, and take it out here",
        )


def refuse(plan: Plan, backend: str) -> None:
    """For a backend that makes all machines by itself.

    :param backend: its name.
    :raise ConfigError: if a role has a start script.
    """
    for role in {one.instance.role.name: one.instance.role for one in plan.own}.values():
        if role.start_script:
            problem = f"backend {backend} runs no start scripts"
            ways = [f"{one} runs `run-NAME-{kind}`" for kind, one in KINDS.items()]
            raise _error(plan.composition, role, problem, f"backend {', and '.join(ways)}")


def _error(composition: Composition, role: Role, problem: str, hint: str) -> ConfigError:
    key = f"roles.{role.name}.start_script"
    return ConfigError(problem, file=composition.source, key=key, hint=hint)
