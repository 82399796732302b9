"""The shell: runs one command over a channel, bound by a deadline, streamed, with any bytes.

The driver's end is `Shell`; the machine's end is `agent.pl`; `frames` has their messages. Nothing
that a command prints can be taken for a result: every command has pipes of its own, and the
channel belongs to the agent alone.
"""

from nxc_testing.shell.shell import Cancelled, Observer, Result, Shell
from nxc_testing.shell.text import Text, prepare

__all__ = ["Cancelled", "Observer", "Result", "Shell", "Text", "prepare"]
