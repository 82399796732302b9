"""Compositions: what is tested, read from its sources into one model."""

from nxc_testing.composition.counts import with_counts
from nxc_testing.composition.identity import (
    MachineFile,
    assign_addresses,
    hosts_entries,
    machine_files,
)
from nxc_testing.composition.model import (
    Composition,
    Disk,
    Instance,
    Network,
    Port,
    Role,
    ShellMode,
    TestScript,
    Volume,
)
from nxc_testing.composition.names import python_name
from nxc_testing.composition.plan import MachinePlan, Plan, Segment, make_plan
from nxc_testing.composition.toml import load

__all__ = [
    "Composition",
    "Disk",
    "Instance",
    "MachineFile",
    "MachinePlan",
    "Network",
    "Plan",
    "Port",
    "Role",
    "Segment",
    "ShellMode",
    "TestScript",
    "Volume",
    "assign_addresses",
    "hosts_entries",
    "load",
    "machine_files",
    "make_plan",
    "python_name",
    "with_counts",
]
