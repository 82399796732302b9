"""Where packages come from: the host's own apt configuration, or a mirror that the user names."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from nxc_testing.errors import ConfigError, ImageError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""Where the package debian-archive-keyring has its keys: on the host as in the image."""

APT_HELPER = "/usr/lib/apt/apt-helper"

INDEX = "$(ORIGIN)\t$(CODENAME)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)"

DOWNLOAD_SETTINGS = (
    "Acquire::http",
    "Acquire::https",
    "Acquire::ftp",
    "Acquire::Retries",
    "Acquire::ForceIPv4",
    "Acquire::ForceIPv6",
)
"""How the host reaches its mirrors: proxies, certificates, time limits."""


@dataclass(frozen=True, slots=True)
class Source:
    """One line of a sources.list.

    :ivar options: beside the keyring, like `check-date=no`.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[str, ...] = ()

    def line(self) -> str:
        """The line, in apt's one-line style."""
        options = " ".join((f"signed-by={KEYRING}", *self.options))
        return f"deb [{options}] {self.uri} {self.suite} {' '.join(self.components)}"

    def public(self) -> Source:
        """The same without a user name and password in the address."""
        parts = urlsplit(self.uri)
        netloc = parts.netloc.rpartition("@")[2]
        uri = urlunsplit(parts._replace(netloc=netloc))
        return Source(uri, self.suite, self.components, self.options)


def sources(suite: str, mirror: str | None = None) -> tuple[Source, ...]:
    """Where to take a suite's packages from.

    :param suite: the release's code name.
    :param mirror: a mirror's address; by default what the host's apt uses.
    :return: the suite itself, then its updates as far as they are known.
    :raise ConfigError: if the mirror cannot be one.
    :raise ImageError: if neither knows the suite.
    """
    return from_mirror(suite, mirror) if mirror else from_host(suite)


def from_host(suite: str) -> tuple[Source, ...]:
    """The host's own sources of a suite, its updates and its security updates.

    Only what calls itself Debian counts; backports and third parties are left out.
    `apt-get indextargets` reads sources.list and deb822 files alike.

    :raise ImageError: if there are none.
    """
    advice = (
        f"run `apt-get update` if this is a Debian {suite} host, or name a mirror of Debian: "
        "--nxc-mirror URL with pytest, --mirror URL with nxc-test"
    )
    output = _run("apt-get", "indextargets", "--format", INDEX, "Created-By: Packages")
    components: dict[tuple[str, str], list[str]] = {}
    for line in output.splitlines():
        origin, codename, uri, release, component = line.split("\t")
        if origin == "Debian" and codename in {suite, f"{suite}-updates", f"{suite}-security"}:
            found = components.setdefault((_first_of_list(uri), release), [])
            if component not in found:
                found.append(component)
    usable = {key: value for key, value in components.items() if _reachable(key[0])}
    if not any(release in {suite, f"{suite}/"} for _, release in usable):
        raise ImageError(f"this host's apt has no index of Debian {suite}; {advice}")
    options = _date_options()
    return tuple(
        Source(uri, release, tuple(parts), options) for (uri, release), parts in usable.items()
    )


def from_mirror(suite: str, mirror: str) -> tuple[Source, ...]:
    """A suite on a mirror, with its `-updates` if the mirror has them.

    :raise ConfigError: if the address is none.
    :raise ImageError: if the mirror does not have the suite.
    """
    if urlsplit(mirror).scheme not in {"http", "https"} or not urlsplit(mirror).netloc:
        raise ConfigError(
            f"{mirror!r} is not a mirror's address",
            key="mirror",
            hint="it starts with http:// or https:// and holds the directory `dists`",
        )
    uri = mirror.rstrip("/") + "/"
    if not _has(uri, suite):
        raise ImageError(f"the mirror {Source(uri, suite, ()).public().uri} does not have {suite}")
    suites = [suite] + [f"{suite}-updates"] * _has(uri, f"{suite}-updates")
    options = _date_options()
    return tuple(Source(uri, one, ("main",), options) for one in suites)


def download_settings() -> str:
    """The part of the host's apt configuration that says how to reach a mirror."""
    return _run("apt-config", "dump", "--no-empty", "--format", '%f "%v";%n', *DOWNLOAD_SETTINGS)


def _date_options() -> tuple[str, ...]:
    """What the host allows of archives that are frozen in time."""
    settings = _run("apt-config", "dump", "--format", "%f=%v%n", "Acquire")
    return tuple(
        f"{name.lower()}=no"
        for name in ("Check-Valid-Until", "Check-Date")
        if re.search(rf"^Acquire::{name}=(0|no|false|without|off|disable)$", settings, re.M | re.I)
    )


def _first_of_list(uri: str) -> str:
    """The first mirror of a list that stands in a file, as Debian's cloud images have it."""
    scheme, _, path = uri.partition(":")
    if scheme != "mirror+file":
        return uri
    file = Path("/" + path.strip("/"))
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return uri
    addresses = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    return addresses[0].rstrip("/") + "/" if addresses else uri


def _reachable(uri: str) -> bool:
    """Whether an image can use it too: not a disc, and not a directory of this host."""
    return uri.partition(":")[0].rpartition("+")[2] not in {"file", "copy", "cdrom"}


def _has(uri: str, suite: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="nxc-mirror-") as directory:
        # apt's own way of fetching a file, so that the host's proxies count.
        command = (APT_HELPER, "download-file", f"{uri}dists/{suite}/InRelease", "InRelease")
        done = subprocess.run(command, cwd=directory, capture_output=True, check=False)
        return done.returncode == 0


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def sources_list(entries: Sequence[Source]) -> str:
    """A whole sources.list."""
    return "".join(entry.line() + "\n" for entry in entries)
