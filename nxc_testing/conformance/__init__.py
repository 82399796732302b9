"""What every backend must pass: each method, each guarantee, each capability.

A backend runs the suite from a module of its tests::

    import pytest

    from nxc_testing.conformance import *


    @pytest.fixture(scope="session")
    def conformance_target():
        return Target(MyBackend(), image="an image that it has")

The tests of such a module share two machines.
"""

import sys

import pytest

_SUBJECTS = (
    *("capabilities", "commands", "consoles", "deployment", "drivers", "faults", "files"),
    *("ports", "power", "signatures", "systemd", "target", "waits"),
)
# Before they are imported, so that pytest explains their assertions.
pytest.register_assert_rewrite(*(f"{__name__}.{subject}" for subject in _SUBJECTS))

# ruff: noqa: E402
from nxc_testing.conformance.capabilities import TestCapabilities, bare
from nxc_testing.conformance.commands import (
    TestEndOfCommands,
    TestEventsOfCommands,
    TestExecute,
    TestFail,
    TestShell,
    TestSideBySide,
    TestSleep,
    TestSucceed,
)
from nxc_testing.conformance.consoles import TestConsole, TestInteract, TestLog, say
from nxc_testing.conformance.deployment import (
    TestDeployment,
    TestEnd,
    TestIdentity,
    TestOwnKernel,
    own,
)
from nxc_testing.conformance.drivers import (
    TestAllMachines,
    TestGlobals,
    TestPollingCondition,
    TestRetry,
    TestScripts,
    TestSubtest,
)
from nxc_testing.conformance.faults import TestFreeze, TestLinks, freezable, linked
from nxc_testing.conformance.files import (
    TestDirectories,
    TestFromMachine,
    TestLarge,
    TestSharedDirectory,
    TestToMachine,
    shared,
    tree,
)
from nxc_testing.conformance.ports import TestForwardPort, TestPorts, TestUnixSockets, server
from nxc_testing.conformance.power import (
    TestDeath,
    TestOwnEnd,
    TestPower,
    TestReboot,
    TestRebootFromInside,
    dead,
    death,
    rebooting,
)
from nxc_testing.conformance.signatures import TestSignatures
from nxc_testing.conformance.systemd import (
    TestSystemctl,
    TestUnitsOfUsers,
    TestWaitForUnit,
    units,
    user,
)
from nxc_testing.conformance.target import (
    Target,
    console,
    driver,
    events,
    machine,
    scratch,
    system,
    victim,
)
from nxc_testing.conformance.waits import TestCallbacks, TestWaitForFile, TestWaitUntil

__all__ = [
    "Target",
    "TestAllMachines",
    "TestCallbacks",
    "TestCapabilities",
    "TestConsole",
    "TestDeath",
    "TestDeployment",
    "TestDirectories",
    "TestEnd",
    "TestEndOfCommands",
    "TestEventsOfCommands",
    "TestExecute",
    "TestFail",
    "TestForwardPort",
    "TestFreeze",
    "TestFromMachine",
    "TestGlobals",
    "TestIdentity",
    "TestInteract",
    "TestLarge",
    "TestLinks",
    "TestLog",
    "TestOwnEnd",
    "TestOwnKernel",
    "TestPollingCondition",
    "TestPorts",
    "TestPower",
    "TestReboot",
    "TestRebootFromInside",
    "TestRetry",
    "TestScripts",
    "TestSharedDirectory",
    "TestShell",
    "TestSideBySide",
    "TestSignatures",
    "TestSleep",
    "TestSubtest",
    "TestSucceed",
    "TestSystemctl",
    "TestToMachine",
    "TestUnitsOfUsers",
    "TestUnixSockets",
    "TestWaitForFile",
    "TestWaitForUnit",
    "TestWaitUntil",
    "bare",
    "console",
    "dead",
    "death",
    "driver",
    "events",
    "freezable",
    "linked",
    "machine",
    "own",
    "rebooting",
    "say",
    "scratch",
    "server",
    "shared",
    "system",
    "tree",
    "units",
    "user",
    "victim",
]

for subject in _SUBJECTS:
    # The plugin hides this package's frames; here they are the test itself.
    vars(sys.modules[f"{__name__}.{subject}"])["__tracebackhide__"] = False
