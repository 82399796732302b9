"""What the backend can do it does; what it cannot it refuses, and says why."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from nxc_testing.backends import base
from nxc_testing.backends.capabilities import CAPABILITIES, Capability
from nxc_testing.conformance.target import Target
from nxc_testing.driver import Driver
from nxc_testing.errors import Unsupported
from nxc_testing.hardware import ATTRIBUTES, Hardware
from nxc_testing.machine import Machine

SERVED = {name for one in CAPABILITIES for name in one.methods}
METHODS = sorted(name for name, value in vars(Hardware).items() if inspect.isfunction(value))
HARDWARE = [name for name in METHODS if not name.startswith("_") and name not in SERVED]
"""What no backend brings so far."""

EXERCISED = {
    *("OwnSystem", "OwnKernel", "Reboots", "Freezes", "Links", "ForwardsPorts"),
    *("SharesDirectory", "HasMonitor", "TakesConsoleInput", "HasTerminals"),
}
"""The capabilities that other modules of the suite use for real, where they are declared."""


def check_refusal(machine: Machine, name: str, error: Unsupported) -> None:
    """See that an error says everything."""
    assert error.method.startswith(name)
    assert (error.machine, error.backend) == (machine.name, machine.backend)
    assert error.why
    for part in (error.machine, error.method, error.backend, error.why):
        assert part in str(error)


def any_arguments(method: Callable[..., Any]) -> list[str]:
    """Something for every parameter that has no default."""
    parameters = inspect.signature(method).parameters.values()
    return ["1" for parameter in parameters if parameter.default is parameter.empty]


@pytest.fixture
def bare(driver: Driver) -> Machine:
    """A machine that is not used otherwise: a refusal needs none that is on."""
    return driver.machine("be-ta")


class TestCapabilities:
    def test_the_suite_knows_every_capability(self) -> None:
        assert {one.name for one in CAPABILITIES} == EXERCISED

    @pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda one: one.name)
    def test_it_is_declared_or_refused(self, bare: Machine, capability: Capability) -> None:
        if capability.declared_by(type(bare.node)):
            assert isinstance(bare.node, capability.protocol)
            return
        for name in capability.methods:
            method = getattr(bare, name)
            with pytest.raises(Unsupported) as caught:
                method(*any_arguments(method))
            check_refusal(bare, name, caught.value)
        for name in capability.attributes:
            with pytest.raises(Unsupported) as caught:
                getattr(bare, name)
            check_refusal(bare, name, caught.value)

    @pytest.mark.parametrize("name", HARDWARE)
    def test_hardware_that_is_not_there_is_refused(self, bare: Machine, name: str) -> None:
        method = getattr(bare, name)
        with pytest.raises(Unsupported) as caught:
            method(*any_arguments(method))
        check_refusal(bare, name, caught.value)

    @pytest.mark.parametrize("name", ATTRIBUTES)
    def test_its_attributes_are_refused(self, bare: Machine, name: str) -> None:
        with pytest.raises(Unsupported) as caught:
            getattr(bare, name)
        check_refusal(bare, name, caught.value)

    def test_what_is_misspelt_is_an_attribute_error(self, bare: Machine) -> None:
        with pytest.raises(AttributeError, match="suceed"):
            bare.suceed("true")  # type: ignore[attr-defined]

    def test_the_nodes_are_of_the_declared_type(
        self, bare: Machine, conformance_target: Target
    ) -> None:
        assert type(bare.node) is conformance_target.backend.node_type()

    def test_the_protocols_are_kept(
        self, driver: Driver, bare: Machine, conformance_target: Target
    ) -> None:
        subjects: list[tuple[object, object]] = [
            (bare.node, base.Node),
            (driver.deployment, base.Deployment),
            (conformance_target.backend, base.Backend),
        ]
        for subject, protocol in subjects:
            wanted = {name for name in vars(protocol) if not name.startswith("_")}
            assert {name for name in wanted if not hasattr(subject, name)} == set()
