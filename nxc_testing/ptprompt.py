"""The prompt with ptpython, for who has installed it; importing this module needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptpython.repl import PythonRepl, run_config

from nxc_testing.repl import trim


class Prompt(PythonRepl):
    """ptpython, with the settings that its user has for it.

    :param known: the names there are.
    :param title: of the terminal's window.
    :param history: the file of earlier lines.
    """

    def __init__(self, known: dict[str, Any], title: str, history: Path):
        super().__init__(get_globals=lambda: known, history_filename=str(history))
        self.terminal_title = title
        # Ctrl-D leaves, as it does in Python.
        self.confirm_exit = False
        run_config(self)

    def eval(self, line: str) -> object:
        """Run what was typed."""
        try:
            return super().eval(line)
        except BaseException as error:
            trim(error)
            raise
