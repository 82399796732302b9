"""Builds images with mmdebstrap: a recipe becomes a root file system, on top of its parent's.

The build runs in mount and process namespaces of its own, in which it is killed as one: whatever
ends it, no mount and no process is left on the host.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from nxc_testing.errors import ImageError, tail
from nxc_testing.images import Image
from nxc_testing.images.cache import NAMESPACES, ROOTFS, Cache, Cached, Meta
from nxc_testing.images.mirror import KEYRING, download_settings, sources, sources_list
from nxc_testing.images.recipe import Entry, Recipe, load

Progress = Callable[[str, str], None]

HOOK = Path(__file__).with_name("hook.sh")

EPOCH = 1735689600
"""No file of an image is newer, in seconds since the epoch: equal builds give equal archives."""

TOOLS = {
    "apt-get": "apt",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "unshare": "util-linux",
}
"""What a build needs of the host, and the package that has it."""

PASSED_ON = ("http_proxy", "https_proxy", "no_proxy")

COUNT = re.compile(r"\d+ upgraded, (\d+) newly installed")
AMOUNT = re.compile(r"Need to get (?:\S+ \S+/)?([1-9]\S* \S+) of archives")


def ensure(
    recipe: Path | str,
    *,
    mirror: str | None = None,
    progress: Progress = lambda topic, message: None,
    rebuild: bool = False,
    cache: Cache | None = None,
) -> Image:
    """Give an image, building it and what it extends where that is missing.

    :param recipe: a built-in recipe's name, a file, or a directory with an `image.toml`.
    :param mirror: a mirror of Debian; by default what the host's apt uses.
    :param progress: told a topic and a message whenever a build comes to a new stage.
    :param rebuild: build this image (not its parents) again, to have today's packages.
    :param cache: where images are kept; the user's by default.
    :return: the image; it stays until somebody prunes the cache.
    :raise ConfigError: if the recipe cannot be used as it stands.
    :raise ImageError: if it cannot be built.
    """
    return _ensure(load(recipe), mirror, progress, rebuild, cache or Cache()).image


def _ensure(
    recipe: Recipe, mirror: str | None, progress: Progress, rebuild: bool, cache: Cache
) -> Cached:
    parent = _ensure(recipe.parent, mirror, progress, False, cache) if recipe.parent else None
    cached = cache.find(recipe.digest)
    if cached and not rebuild:
        return cached
    topic = f"image {recipe.name}"
    asked_at = time.time()

    def say(text: str) -> None:
        progress(topic, text)

    with cache.lock(recipe.digest, f"a build of {topic}", say):
        cached = cache.find(recipe.digest)
        # Whoever held the lock may have built it meanwhile.
        if cached and not (rebuild and cached.meta.built_at < asked_at):
            return cached
        with cache.building(recipe.digest) as directory:
            build = _Build(recipe, parent, mirror=mirror, say=say, cache=cache, directory=directory)
            return build.run()


class _Build:
    """One build of one image, in a directory of its own."""

    def __init__(
        self,
        recipe: Recipe,
        parent: Cached | None,
        *,
        mirror: str | None,
        say: Callable[[str], None],
        cache: Cache,
        directory: Path,
    ):
        self.recipe, self.parent, self.mirror, self.cache = recipe, parent, mirror, cache
        self.report = say
        self.installs = parent is None or bool(recipe.packages)
        self.work, self.tmp, self.out = (directory / name for name in ("work", "tmp", "out"))
        self.log = cache.logs / f"{recipe.name}-{recipe.digest[:12]}.log"
        self.started = time.monotonic()

    def say(self, message: str) -> None:
        self.report(f"{message} ({time.monotonic() - self.started:.0f} s)")

    def run(self) -> Cached:
        self.check_tools()
        for directory in (self.work, self.tmp, self.out, self.log.parent):
            directory.mkdir(parents=True, exist_ok=True)
        self.report(f"building, log in {self.log}")
        self.prepare()
        status = self.execute()
        if status:
            raise ImageError(self.complaint(status))
        rootfs = self.out / ROOTFS
        packages = self.work / "packages.txt"
        count = len(packages.read_text().splitlines())
        packages.rename(self.out / packages.name)
        took = time.monotonic() - self.started
        meta = Meta(
            name=self.recipe.name,
            digest=self.recipe.digest,
            parent=self.parent.meta.digest if self.parent else "",
            suite=self.recipe.suite,
            units=self.recipe.units,
            build=secrets.token_hex(8),
            built_at=time.time(),
            packages=count,
            size=rootfs.stat().st_size,
            seconds=round(took, 1),
        )
        cached = self.cache.keep(self.out, meta)
        self.say(f"built: {count} packages, {meta.size / 1e6:.0f} MB")
        return cached

    def check_tools(self) -> None:
        for tool, package in TOOLS.items():
            if tool == "newuidmap" and os.geteuid() == 0:
                continue
            if not shutil.which(tool, path=_path()):
                raise ImageError(
                    f"images are built with {tool}, which this host does not have: "
                    f"apt-get install {package}"
                )
        if not Path(KEYRING).exists():
            raise ImageError(f"{KEYRING} is missing: apt-get install debian-archive-keyring")

    def prepare(self) -> None:
        """Leave the orders for the hook."""
        recipe, work = self.recipe, self.work
        # Without packages the parent's sources stay, and no mirror is needed.
        entries = sources(recipe.suite, self.mirror) if self.installs else ()
        (work / "sources.list").write_text(sources_list(entries))
        (work / "sources.public").write_text(sources_list([one.public() for one in entries]))
        (work / "apt.conf").write_text(download_settings())
        (work / "apt.conf").chmod(0o600)
        (work / "packages").write_text("".join(f"{name}\n" for name in recipe.packages))
        if recipe.entries:
            _pack(recipe.entries, work / "files.tar")
        for number, script in enumerate(recipe.scripts):
            copy = work / "scripts" / f"{number:04}" / script.name
            copy.parent.mkdir(parents=True)
            shutil.copyfile(script, copy)
            copy.chmod(0o755)
        if self.parent:
            # A link, so that it stays while this build needs it.
            os.link(self.parent.image.rootfs, work / "parent.tar")

    def command(self) -> list[str]:
        skipped = ["check/signed-by", "check/qemu"]
        variant = "custom" if self.parent else "minbase"
        if not self.installs:
            skipped.append("update")
        # fmt: off
        return [
            *(NAMESPACES if os.geteuid() else ()),
            "setpriv", "--pdeathsig", "KILL",
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
            "mmdebstrap", "--verbose", "--mode=root", "--format=tar", f"--variant={variant}",
            f"--skip={','.join(skipped)}",
            '--setup-hook=sh "$NXC_HOOK" "$1"',
            '--customize-hook=sh "$NXC_HOOK" "$1"',
            self.recipe.suite, str(self.out / ROOTFS), "-",
        ]
        # fmt: on

    def environment(self) -> dict[str, str]:
        """Nothing of the user's, who may have secrets there, but the proxies."""
        return {
            "PATH": _path(),
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(self.tmp),
            "SOURCE_DATE_EPOCH": str(EPOCH),
            "NXC_HOOK": str(HOOK),
            "NXC_WORK": str(self.work),
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        }

    def execute(self) -> int:
        """Run mmdebstrap to its end, telling what it does.

        :return: its exit status.
        """
        with (
            self.log.open("wb") as log,
            # A file given by name would stay in the image beside sources.list.
            (self.work / "sources.list").open("rb") as stdin,
            subprocess.Popen(
                self.command(),
                env=self.environment(),
                cwd="/",
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            assert process.stdout
            stage = Stages()
            try:
                for line in process.stdout:
                    log.write(line)
                    if message := stage(line.decode(errors="replace").rstrip("\n")):
                        self.say(message)
                return process.wait()
            except BaseException:
                process.kill()
                # All have ended once nobody holds the pipe any more.
                process.stdout.read()
                raise

    def complaint(self, status: int) -> str:
        # What follows is mmdebstrap giving up; what came before says why.
        log = self.log.read_text(errors="replace")
        output = log.rpartition("\nE: setup failed: ")[0] or log
        what = f"the build ended with status {status}"
        failed = self.work / "failed"
        if failed.exists():
            script, script_status = failed.read_text().splitlines()
            what = f"script {script} ended with status {script_status}"
        elif output.startswith("unshare: "):
            what = (
                "this host gives no namespaces to build in; it takes root with CAP_SYS_ADMIN, or "
                "user namespaces and a range of ids for you in /etc/subuid and /etc/subgid"
            )
        text = f"image {self.recipe.name}: {what}{tail('build log', output)}"
        return f"{text}\n  the whole log: {self.log}"


class Stages:
    """Reads in a build's output how far it is."""

    def __init__(self) -> None:
        self._packages = 0

    def __call__(self, line: str) -> str:
        """What a line says.

        :return: a message for the user; nothing for most lines.
        """
        if line.startswith("nxc: "):
            return line.removeprefix("nxc: ")
        if found := COUNT.match(line):
            self._packages = int(found[1])
        elif found := AMOUNT.match(line):
            return f"downloading {self._packages} packages, {found[1]}"
        elif line.startswith("Fetched ") and self._packages:
            count, self._packages = self._packages, 0
            return f"installing {count} packages"
        return {
            "I: running apt-get update...": "reading the mirror's indexes",
            "I: installing essential packages...": "configuring the essential packages",
            "I: creating tarball...": "packing",
        }.get(line, "")


def _pack(entries: Iterable[Entry], archive: Path) -> None:
    """Make a tar archive of a recipe's files."""
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry.target.lstrip("/"))
            member.mode, member.mtime = entry.mode, EPOCH
            if entry.type == "directory":
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            elif entry.type == "link":
                member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(entry.content)
                tar.addfile(member)
            elif entry.source:
                with entry.source.open("rb") as file:
                    member.size = os.fstat(file.fileno()).st_size
                    tar.addfile(member, file)
            else:
                member.size = len(entry.content)
                tar.addfile(member, io.BytesIO(entry.content))


def _path() -> str:
    """The user's PATH, and where Debian has its tools of administration."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
