"""What a kind of machine can do beyond running commands, told by the protocols its nodes satisfy.

`python -m nxc_testing.backends.capabilities docs/backends.md` brings the table there up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nxc_testing import backends
from nxc_testing.backends.base import (
    ForwardsPorts,
    Freezes,
    HasMonitor,
    HasTerminals,
    Links,
    Node,
    OwnKernel,
    OwnSystem,
    Reboots,
    SharesDirectory,
    TakesConsoleInput,
)
from nxc_testing.errors import ConfigError
from nxc_testing.tables import suggestion

if TYPE_CHECKING:
    from nxc_testing.composition import Composition

BEGIN, END = "<!-- capabilities: begin -->", "<!-- capabilities: end -->"


@dataclass(frozen=True, slots=True)
class Capability:
    """Something that some backends can do and others refuse.

    :ivar protocol: what a node satisfies that can do it.
    :ivar methods: the machine's methods that need it.
    :ivar what: what it is, for a reader.
    :ivar attributes: the machine's attributes that need it.
    """

    protocol: type
    methods: tuple[str, ...]
    what: str
    attributes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The protocol's name."""
        return self.protocol.__name__

    def declared_by(self, node_type: type) -> bool:
        """Whether nodes of a type have all that the protocol asks for."""
        members = (name for name in vars(self.protocol) if not name.startswith("_"))
        return all(hasattr(node_type, name) for name in members)


CAPABILITIES = (
    Capability(OwnSystem, (), "a system of its own, with an init, files, a journal, a network"),
    Capability(OwnKernel, (), "a kernel of its own, with modules, file systems, panics"),
    Capability(Reboots, ("reboot",), "restart in order"),
    Capability(Freezes, ("freeze", "thaw"), "stop all processes, and continue"),
    Capability(Links, ("block", "unblock"), "cut the network, and restore it"),
    Capability(ForwardsPorts, ("forward_port",), "reach a port of the machine from the host"),
    Capability(
        SharesDirectory,
        (),
        "a directory of the host that all machines have at /tmp/shared",
        ("shared_dir",),
    ),
    Capability(
        HasMonitor,
        ("send_monitor_command", "wait_for_monitor_prompt", "wait_for_qmp_event"),
        "talk to QEMU",
        ("qmp_client", "pid"),
    ),
    Capability(
        TakesConsoleInput,
        ("send_console", "interact_console", "console_interact"),
        "type into the console",
    ),
    Capability(
        HasTerminals,
        ("get_tty_text", "wait_until_tty_matches", "dump_tty_contents"),
        "read virtual terminals",
    ),
)


def capabilities(node_type: type[Node]) -> tuple[Capability, ...]:
    """What machines of a kind can do beyond running commands.

    :param node_type: a backend's `node_type()`.
    """
    return tuple(one for one in CAPABILITIES if one.declared_by(node_type))


def needed_by(composition: Composition) -> tuple[Capability, ...]:
    """What a composition asks of whatever its machines are.

    :raise ConfigError: if it names what is no capability.
    """
    known = {one.name: one for one in CAPABILITIES}
    for name in composition.needs:
        if name not in known:
            raise ConfigError(
                f"there is no capability {name!r}",
                file=composition.source,
                key="composition.needs",
                hint=suggestion(name, known),
            )
    return tuple(known[name] for name in composition.needs)


def table(node_types: Mapping[str, type[Node]]) -> str:
    """A Markdown table of what each backend can do.

    :param node_types: by the backend's name.
    """
    names = list(node_types)
    lines = [
        f"| capability | methods | {' | '.join(f'`{name}`' for name in names)} |",
        f"| --- | --- |{' :-: |' * len(names)}",
    ]
    for one in CAPABILITIES:
        methods = ", ".join(f"`{name}`" for name in (*one.methods, *one.attributes))
        cells = ("yes" if one.declared_by(node_types[name]) else "no" for name in names)
        lines.append(f"| `{one.name}`: {one.what} | {methods} | {' | '.join(cells)} |")
    return "\n".join(lines)


def installed() -> dict[str, type[Node]]:
    """The node types of the installed backends, by name."""
    return {name: backends.create(name).node_type() for name in backends.names()}


def with_table(page: str, node_types: Mapping[str, type[Node]]) -> str:
    """A page with the table of today between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(node_types)}\n{END}{after}"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        file = Path(argument)
        file.write_text(with_table(file.read_text(), installed()))
