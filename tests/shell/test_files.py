"""Files to and from machines, beside what `cp -r` does."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import socket
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nxc_testing import files
from nxc_testing.backends.base import SharesDirectory
from nxc_testing.conformance.files import at_most
from nxc_testing.driver import Driver
from nxc_testing.errors import CommandFailed, InfraError, MachineUsageError
from nxc_testing.machine import Machine
from nxc_testing.shell import Result

NAMES = (
    "plain",
    "two words",
    " leading",
    "-dash",
    "--help",
    "quote'\"$(x)`y`",
    "back\\slash",
    "new\nline",
    "\N{LATIN SMALL LETTER E WITH ACUTE}\N{EURO SIGN}\N{GRINNING FACE}",
    "*",
    "x" * 250,
)


@pytest.fixture(scope="module")
def machine(driver: Driver) -> Machine:
    machine = driver.machine("alpha")
    machine.connect()
    return machine


@pytest.fixture
def scratch(machine: Machine) -> str:
    return machine.succeed("mktemp -d").strip()


@pytest.fixture
def unshared(machine: Machine) -> Iterator[None]:
    """The machine does not see what is shared with it, and all goes by its shell."""
    shares = isinstance(machine.node, SharesDirectory)
    if shares:
        machine.succeed("mount -t tmpfs hidden /tmp/shared")
    yield
    if shares:
        machine.succeed("umount /tmp/shared")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One of everything."""
    tree = tmp_path / "tree"
    (tree / "inner" / "empty").mkdir(parents=True)
    for name in NAMES:
        (tree / name).write_bytes(name.encode())
    (tree / b"not utf-8 \xff".decode(errors="surrogateescape")).write_text("x")
    (tree / "empty file").touch()
    (tree / "private").write_text("secret")
    (tree / "private").chmod(0o600)
    (tree / "inner" / "program").write_text("#!/bin/sh\necho ran\n")
    (tree / "inner" / "program").chmod(0o755)
    (tree / "inner").chmod(0o750)
    (tree / "inner" / ("deep" * 40)).mkdir()
    (tree / "inner" / ("deep" * 40) / ("deeper" * 30)).write_text("deep")
    os.link(tree / "plain", tree / "hard link")
    (tree / "link").symlink_to("plain")
    (tree / "link to a directory").symlink_to("inner")
    return tree


def listing_of(directory: Path) -> list[str]:
    """Path, kind, mode and content of all that is in a directory of the host."""
    return subprocess.run(
        ["bash", "-c", LISTING, "-", directory], check=True, capture_output=True, text=True
    ).stdout.splitlines()


# Names with newlines in them are quoted.
LISTING = r"""
export LC_ALL=C
cd "$1"
find . -mindepth 1 -print0 | sort -z | while IFS= read -r -d '' path; do
  [[ -d $path ]] && digest= || digest=$(md5sum <"$path" 2>&1)
  printf '%q %s %s\n' "$path" "$(stat -c '%F %a' "$path")" "$digest"
done
"""


def listing_in(machine: Machine, path: str) -> list[str]:
    return machine.succeed(f"set -- {path}\n{LISTING}").splitlines()


class TestPush:
    def test_a_tree_arrives_as_cp_makes_it(
        self, machine: Machine, scratch: str, tree: Path, tmp_path: Path
    ) -> None:
        subprocess.run(["cp", "-rL", "--preserve=mode", tree, tmp_path / "copy"], check=True)
        files.push(machine, tree, f"{scratch}/copy")
        assert listing_in(machine, f"{scratch}/copy") == listing_of(tmp_path / "copy")

    def test_all_of_a_tree_belongs_to_root(
        self, machine: Machine, scratch: str, tree: Path
    ) -> None:
        if os.geteuid() == 0:
            for path in (tree, *tree.rglob("*")):
                os.chown(path, 12345, 12345, follow_symlinks=False)
        files.push(machine, tree, f"{scratch}/copy")
        owners = machine.succeed(f"find {scratch}/copy -printf '%u\n' | sort -u")
        assert owners == machine.succeed("id -un")

    def test_onto_a_directory_it_nests(self, machine: Machine, scratch: str, tree: Path) -> None:
        files.push(machine, tree, scratch)
        files.push(machine, tree, scratch)
        assert machine.succeed(f"ls {scratch}; ls {scratch}/tree | wc -l").split() == ["tree", "19"]

    def test_a_directory_that_is_there_is_merged_into(
        self, machine: Machine, scratch: str, tmp_path: Path
    ) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "file").write_text("new")
        machine.succeed(
            f"mkdir {scratch}/d; echo old >{scratch}/d/file; echo old >{scratch}/d/other"
        )
        files.push(machine, tmp_path / "d", scratch)
        assert machine.succeed(f"cat {scratch}/d/file {scratch}/d/other") == "newold\n"

    @pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
    def test_any_name(self, machine: Machine, scratch: str, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("content")
        files.push(machine, tmp_path / name, f"{scratch}/{name}")
        back = tmp_path / "back" / name
        files.pull(machine, f"{scratch}/{name}", back)
        assert back.read_text() == "content"

    def test_a_relative_target_is_the_commands_directory(
        self, machine: Machine, scratch: str, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("x")
        name = f"-{Path(scratch).name}"
        files.push(machine, tmp_path / "file", name)
        assert machine.succeed(f"cat ./{name}; rm ./{name}") == "x"

    def test_a_file_that_exists_is_written_to(
        self, machine: Machine, scratch: str, tmp_path: Path
    ) -> None:
        """As in a container's /etc/hosts, which is a mount that nothing can replace."""
        (tmp_path / "file").write_text("new")
        machine.succeed(f"cd {scratch}; umask 77; echo something older >real; ln -s real link")
        files.push(machine, tmp_path / "file", f"{scratch}/link")
        seen = machine.succeed(f"cd {scratch}; cat real; stat -c '%F %a' link real")
        assert seen == "newsymbolic link 777\nregular file 600\n"

    def test_a_secret_keeps_its_mode(self, machine: Machine, scratch: str, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (tmp_path / "secret").chmod(0o600)
        files.push(machine, tmp_path / "secret", f"{scratch}/secret")
        assert machine.succeed(f"stat -c %a {scratch}/secret") == "600\n"

    def test_an_empty_file(self, machine: Machine, scratch: str, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        files.push(machine, tmp_path / "empty", f"{scratch}/empty")
        assert machine.succeed(f"stat -c %s {scratch}/empty") == "0\n"

    def test_the_present_directory_goes_under_its_name(
        self, machine: Machine, scratch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        files.push(machine, Path(), scratch)
        assert machine.succeed(f"ls {scratch}") == "here\n"

    def test_what_is_not_there_is_refused(self, machine: Machine, tmp_path: Path) -> None:
        with pytest.raises(MachineUsageError, match="none does not exist on the host"):
            files.push(machine, tmp_path / "none", "/tmp/none")

    def test_what_is_no_file_is_refused(self, machine: Machine, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(MachineUsageError, match="neither a file nor a directory"):
            files.push(machine, tmp_path / "fifo", "/tmp/fifo")

    def test_a_link_to_nowhere_is_told(
        self, machine: Machine, scratch: str, tmp_path: Path
    ) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "dangling").symlink_to("nowhere")
        with pytest.raises(MachineUsageError, match=r"cannot be read: .*dangling"):
            files.push(machine, tmp_path / "d", scratch)

    def test_sockets_are_left_out(self, machine: Machine, scratch: str, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "d" / "socket"))
            files.push(machine, tmp_path / "d", scratch)
        assert machine.succeed(f"ls {scratch}/d") == ""

    @pytest.mark.parametrize("name", ["plain", "inner"])
    def test_where_nothing_can_be_written_it_fails(
        self, machine: Machine, tree: Path, name: str
    ) -> None:
        with pytest.raises(CommandFailed, match=r"(c|C)annot create|No such file"):
            files.push(machine, tree / name, "/proc/nowhere/target")
        assert not [t for t in threading.enumerate() if t.name == "nxc-tar"]

    def test_a_file_in_the_way_fails(self, machine: Machine, scratch: str, tree: Path) -> None:
        machine.succeed(f"echo x >{scratch}/file")
        with pytest.raises(CommandFailed):
            files.push(machine, tree / "inner", f"{scratch}/file/below")


class TestPull:
    def test_a_tree_arrives_as_cp_makes_it(
        self, machine: Machine, scratch: str, tree: Path, tmp_path: Path
    ) -> None:
        files.push(machine, tree, f"{scratch}/tree")
        machine.succeed(f"cd {scratch}/tree; rm link; ln -s plain link; ln -f plain 'hard link'")
        files.pull(machine, f"{scratch}/tree", tmp_path / "other name")
        copied = tmp_path / "other name"
        assert os.readlink(copied / "link") == "plain"
        assert (copied / "hard link").read_text() == "plain"
        (copied / "link").unlink()
        shutil.copy(copied / "plain", copied / "link")
        machine.succeed(f"cd {scratch}/tree; rm link; cp plain link")
        assert listing_of(copied) == listing_in(machine, f"{scratch}/tree")

    def test_it_belongs_to_whoever_runs_this(
        self, machine: Machine, scratch: str, tmp_path: Path
    ) -> None:
        machine.succeed(f"cd {scratch}; touch file; chown nobody:daemon file; chmod 6755 file")
        files.pull(machine, f"{scratch}/file", tmp_path / "file")
        found = (tmp_path / "file").stat()
        assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
        assert stat.S_IMODE(found.st_mode) == 0o755

    def test_a_link_is_followed(self, machine: Machine, scratch: str, tmp_path: Path) -> None:
        machine.succeed(f"cd {scratch}; mkdir real; echo x >real/file; ln -s real current")
        files.pull(machine, f"{scratch}/current", tmp_path / "current")
        assert (tmp_path / "current" / "file").read_text() == "x\n"
        files.pull(machine, f"{scratch}/current/file", tmp_path / "file")
        assert (tmp_path / "file").read_text() == "x\n"

    def test_what_is_there_is_merged_into(
        self, machine: Machine, scratch: str, tmp_path: Path
    ) -> None:
        machine.succeed(f"mkdir {scratch}/d; echo new >{scratch}/d/file")
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "file").write_text("old")
        (tmp_path / "d" / "other").write_text("old")
        files.pull(machine, f"{scratch}/d", tmp_path / "d")
        assert (tmp_path / "d" / "file").read_text() == "new\n"
        assert (tmp_path / "d" / "other").read_text() == "old"

    def test_a_log_that_is_written_to_meanwhile(
        self, machine: Machine, scratch: str, tmp_path: Path
    ) -> None:
        log = f"{scratch}/log"
        grow = f"head -c 30000000 /dev/zero >{log}; while echo line; do :; done >>{log}"
        machine.succeed(f"({grow}) </dev/null >/dev/null 2>&1 & echo $! >{scratch}/pid")
        machine.succeed(f"until [[ $(stat -c %s {log}) -gt 30000000 ]]; do sleep 0.05; done")
        files.pull(machine, log, tmp_path / "log")
        machine.succeed(f"kill -9 $(cat {scratch}/pid); rm {log}")
        assert (tmp_path / "log").stat().st_size > 30_000_000

    def test_what_is_not_there_fails(self, machine: Machine, scratch: str, tmp_path: Path) -> None:
        with pytest.raises(CommandFailed, match="No such file or directory"):
            files.pull(machine, f"{scratch}/none", tmp_path / "none")
        assert not (tmp_path / "none").exists()

    def test_a_disk_that_is_full_is_told(
        self,
        machine: Machine,
        scratch: str,
        unshared: None,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        machine.succeed(f"head -c 1000000 /dev/zero >{scratch}/file")
        with Path("/dev/full").open("wb", 0) as full:
            monkeypatch.setattr("tempfile.TemporaryFile", lambda: full)
            with pytest.raises(OSError, match="No space left"):
                files.pull(machine, f"{scratch}/file", tmp_path / "file")
        assert machine.succeed("echo usable") == "usable\n"

    def test_an_archive_that_leads_out_is_refused(
        self,
        machine: Machine,
        scratch: str,
        unshared: None,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A machine may be hostile: its `tar` may send anything."""
        outside = tmp_path / "outside"
        outside.mkdir()
        sent = io.BytesIO()
        with tarfile.open(fileobj=sent, mode="w") as tar:
            link = tarfile.TarInfo("d/link")
            link.type, link.linkname = tarfile.SYMTYPE, str(outside)
            tar.addfile(link)
            tar.addfile(tarfile.TarInfo("d/link/file"))

        def transfer(command: str, *, sink: Callable[[bytes], object]) -> Result:
            sink(sent.getvalue())
            return machine.run("true")

        machine.succeed(f"mkdir {scratch}/d")
        monkeypatch.setattr(machine, "transfer", transfer)
        with pytest.raises(InfraError, match="leads out of"):
            files.pull(machine, f"{scratch}/d", tmp_path / "in" / "d")
        assert list(outside.iterdir()) == []


def test_much_takes_little_memory(machine: Machine, scratch: str, tmp_path: Path) -> None:
    digest = hashlib.sha256()
    noise = random.Random(1).randbytes(1 << 20)
    with (tmp_path / "much").open("wb") as file:
        for _ in range(200):
            file.write(noise)
            digest.update(noise)
    with at_most(50 << 20):
        files.push(machine, tmp_path / "much", f"{scratch}/much")
        (tmp_path / "much").unlink()
        files.pull(machine, f"{scratch}/much", tmp_path / "back")
    machine.succeed(f"rm {scratch}/much")
    with (tmp_path / "back").open("rb") as back:
        assert hashlib.file_digest(back, "sha256").digest() == digest.digest()
    (tmp_path / "back").unlink()
