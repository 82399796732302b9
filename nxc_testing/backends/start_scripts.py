"""Start scripts: programs that make and start a machine by the NixOS test driver's contract."""

from __future__ import annotations

import os
from pathlib import Path

from nxc_testing.composition import Composition, Instance, Plan, Role
from nxc_testing.errors import ConfigError


def script_of(composition: Composition, instance: Instance) -> Path:
    """A machine's start script.

    :raise ConfigError: if there is no such program.
    """
    script = Path(instance.role.start_script.replace("{name}", instance.name))
    if not os.access(script, os.X_OK) or script.is_dir():
        raise _error(composition, instance.role, f"{script} is no program", "build it first")
    return script


def refuse(plan: Plan, backend: str) -> None:
    """For a backend that makes all machines by itself.

    :param backend: its name.
    :raise ConfigError: if a role has a start script.
    """
    for role in {one.instance.role.name: one.instance.role for one in plan.own}.values():
        if role.start_script:
            problem = f"backend {backend} runs no start scripts"
            raise _error(plan.composition, role, problem, "backend nspawn runs `run-NAME-nspawn`")


def _error(composition: Composition, role: Role, problem: str, hint: str) -> ConfigError:
    key = f"roles.{role.name}.start_script"
    return ConfigError(problem, file=composition.source, key=key, hint=hint)
