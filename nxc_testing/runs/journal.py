"""What a run has made, noted in its directory before it was made."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESOURCES = "resources.jsonl"


@dataclass(frozen=True, slots=True)
class Record:
    """Something of a run that outlives its process, until it is released.

    :ivar backend: whose it is, by the entry point's name.
    :ivar identifier: enough for that backend to find it.
    :ivar composition: what it is for.
    :ivar machines: the machines' names.
    """

    backend: str
    identifier: str
    composition: str = ""
    machines: Sequence[str] = ()


class Journal:
    """A run's records. Each change is one line, written at once: it is whole or not there.

    :param directory: the run's.
    """

    def __init__(self, directory: Path):
        self._path = directory / RESOURCES

    def add(self, record: Record) -> None:
        """Note something that is about to be made."""
        self._write({"made": asdict(record)})

    def drop(self, record: Record) -> None:
        """Note that it is gone."""
        self._write({"gone": asdict(record)})

    def _write(self, line: object) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.write(descriptor, f"{json.dumps(line)}\n".encode())
        finally:
            os.close(descriptor)

    def records(self) -> list[Record]:
        """What there still is; nothing if nothing was ever noted."""
        there: dict[tuple[str, str], Record] = {}
        try:
            lines = self._path.read_text().splitlines()
        except OSError:
            return []
        for line in lines:
            try:
                ((change, fields),) = json.loads(line).items()
                record = Record(**fields)
            except (ValueError, TypeError, AttributeError):
                # Cut off by a full disk.
                continue
            key = record.backend, record.identifier
            if change == "made":
                there[key] = record
            else:
                there.pop(key, None)
        return list(there.values())
