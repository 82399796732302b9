"""What a run keeps for its user: the event log, and a directory for each test that failed."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from pytest_nxc.options import Options

if TYPE_CHECKING:
    from nxc_testing.driver import Driver
    from nxc_testing.session import Session

EVENT_LOG = "events.jsonl"
COMMANDS = "commands.log"
LATEST = "latest"

NAME_LENGTH = 120
ENDS, SHORT_ENDS = 10, 3
"""Lines of a console and a journal that the report shows: of the machine that the failure is about,
and of others."""

Sections = list[tuple[str, str]]


class Artifacts:
    """The directory of a run's artifacts: made when there is something to keep, or gone at the end.

    :param options: where it is to be, and what is kept.
    :param name: its name; workers of pytest-xdist are told their controller's.
    """

    def __init__(self, options: Options, name: str | None = None):
        self.policy = options.artifacts
        self.name = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self._place = options.artifacts_dir
        self.kept = self.policy == "on"
        self._session: Session | None = None
        self._start = 0

    @property
    def directory(self) -> Path | None:
        """The run's directory; None if nothing is to be kept."""
        return None if self.policy == "off" else self._place / self.name

    def event_log(self) -> Path | None:
        """Make the directory, for the run's events.

        :return: their file; None if nothing is to be kept.
        :raise OSError: if there can be no such directory.
        """
        if self.directory is None:
            return None
        self._place.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), (self._place / ".gitignore").open("x") as ignore:
            ignore.write("*\n")
        self.directory.mkdir(mode=0o700, exist_ok=True)
        return self.directory / EVENT_LOG

    def begin_test(self) -> None:
        """What the event log tells from here on is the running test's."""
        log = self.directory / EVENT_LOG if self.directory else None
        self._start = log.stat().st_size if log and log.exists() else 0

    def collect(self, nodeid: str, driver: Driver, failure: str = "") -> Sections:
        """Keep what a test's machines can tell now.

        :param failure: the error's text; ours begin with the name of the machine that they are
            about, which then comes last and longest.
        :return: the ends of it, as sections of a report.
        """
        from nxc_testing import evidence, transcript  # noqa: PLC0415 (only where machines are)

        found = evidence.gather(driver.machines)
        about = re.split(r"[\s:]", failure, maxsplit=1)[0]
        known = about in {one.machine for one in found}
        sections = []
        for one in sorted(found, key=lambda one: one.machine == about):
            lines = ENDS if about == one.machine or not known else SHORT_ENDS
            for kind, text in (("console", one.console), ("journal", one.journal)):
                if text.strip():
                    end = "\n".join(transcript.plain(text).splitlines()[-lines:])
                    sections.append((f"nxc: {kind} of {one.machine}", end))
        if self.directory is not None:
            place = self.directory / directory_name(nodeid)
            place.mkdir(mode=0o700, exist_ok=True)
            for one in found:
                one.write(place)
            self._write_commands(place / COMMANDS, driver.session)
            self.kept = True
            sections.append(("nxc: artifacts", str(place)))
        return sections

    def _write_commands(self, path: Path, session: Session) -> None:
        """Write what the machines did in this test, from the event log."""
        from nxc_testing import event_log, transcript  # noqa: PLC0415 (not cheap)
        from nxc_testing.events import ConsoleOutput  # noqa: PLC0415

        log = path.parent.parent / EVENT_LOG
        with path.open("w") as file:
            for event in event_log.read(log, run=session.id, start=self._start):
                if isinstance(event, ConsoleOutput):
                    continue
                clock = time.strftime("%H:%M:%S", time.localtime(event.time))
                moment = f"{clock}.{int(event.time % 1 * 1000):03d}"
                file.writelines(f"{moment} {line}\n" for line in transcript.lines(event))

    def close(self, *, kept: bool) -> Path | None:
        """End: keep the directory, with a link to it, or remove it.

        :param kept: whether there is something worth it.
        :return: the directory, if it is kept.
        """
        if self.directory is None or not self.directory.is_dir():
            return None
        if kept:
            self._link_latest()
            return self.directory
        rmtree(self.directory)
        # Others' runs may be there, and then it stays.
        with suppress(OSError):
            if [path.name for path in self._place.iterdir()] == [".gitignore"]:
                (self._place / ".gitignore").unlink()
                self._place.rmdir()
        return None

    def _link_latest(self) -> None:
        link = self._place / f".{LATEST}-{self.name}"
        with suppress(OSError):
            link.symlink_to(self.name)
            link.replace(self._place / LATEST)


def directory_name(nodeid: str) -> str:
    """A test's name as the name of a directory; different for different tests."""
    name = re.sub(r"[^\w.=\[\]]+", "-", nodeid)
    if len(name) > NAME_LENGTH or re.search(r"[^\w./:\[\]=]", nodeid):
        digest = hashlib.sha256(nodeid.encode(errors="replace")).hexdigest()[:8]
        name = f"{name[:NAME_LENGTH]}-{digest}"
    return name
