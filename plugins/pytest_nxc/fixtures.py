"""The fixtures of a composition; they are known in its directory and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from nxc_testing.composition import Composition
    from nxc_testing.driver import Driver
    from nxc_testing.machine import Machine
    from pytest_nxc.lifetime import Bed, Lifetime

__tracebackhide__ = True


def register(node: pytest.Collector, composition: Composition, lifetime: Lifetime) -> Bed:
    """Make a composition's fixtures.

    All but one live as long as the run, so that a user's fixture of any scope may use them.

    :param node: the composition's directory.
    :return: the bed that they use.
    """
    from nxc_testing.composition import python_name  # noqa: PLC0415 (not cheap)

    machine_fixtures = {}
    for instance in composition.instances():
        for host in (instance.name, *instance.aliases):
            machine_fixtures[python_name(host)] = _machine(instance.name, composition.name)
    if len(composition.instances()) == 1:
        (only,) = composition.instances()
        machine_fixtures.setdefault("machine", _machine(only.name, composition.name))
    bed = lifetime.bed(composition, frozenset({*machine_fixtures, "machines", "driver"}))

    def driver() -> Driver:
        return lifetime.driver(bed)

    driver.__doc__ = (
        f"The driver of {composition.name}: `start_all()`, `join_all()`, `subtest()`, `machines`."
        " The first test that needs machines deploys them; they are released after the last one."
        " A machine starts when it is first used."
    )

    def the_composition() -> Composition:
        return bed.composition

    the_composition.__doc__ = (
        f"The composition {composition.name} as it is in this run: roles, instances, networks,"
        " parameters. It needs no machines."
    )

    def subtests_of_test(subtests: pytest.Subtests) -> Iterator[None]:
        with lifetime.subtests.during(subtests):
            yield

    subtests_of_test.__doc__ = "Makes a `subtest` of the driver a pytest subtest."

    def machines(driver: Driver) -> object:
        return driver.machines

    machines.__doc__ = f"All machines of {composition.name}, sorted by name."

    def add(
        name: str, function: Callable[..., object], scope: Literal["session", "function"]
    ) -> None:
        autouse = scope == "function"
        pytest.register_fixture(name=name, func=function, node=node, scope=scope, autouse=autouse)

    add("driver", driver, "session")
    add("machines", machines, "session")
    add("composition", the_composition, "session")
    add("_nxc_subtests", subtests_of_test, "function")
    for name, function in machine_fixtures.items():
        add(name, function, "session")
    return bed


def _machine(host: str, composition: str) -> Callable[[Driver], Machine]:
    def machine(driver: Driver) -> Machine:
        return driver.machine(host)

    machine.__doc__ = f"The machine `{host}` of {composition}."
    return machine
