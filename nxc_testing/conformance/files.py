"""Files between the host and a machine."""

from __future__ import annotations

import filecmp
import hashlib
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from nxc_testing.backends.base import Reboots, SharesDirectory
from nxc_testing.conformance.target import Target, opened
from nxc_testing.errors import CommandFailed, MachineUsageError
from nxc_testing.files import LARGE
from nxc_testing.machine import Machine

ANY_BYTES = random.Random(1).randbytes(3 << 20)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory of the host with something in it."""
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "a file").write_text("one\n")
    (tree / "inner" / "run").write_text("#!/bin/sh\necho ran\n")
    (tree / "inner" / "run").chmod(0o755)
    return tree


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """See that this process takes no more bytes of memory meanwhile."""
    process = psutil.Process()
    before = process.memory_info().rss
    over = threading.Event()
    peaks = [0]

    def watch() -> None:
        while not over.wait(0.01):
            peaks.append(process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    over.set()
    watcher.join()
    assert max(peaks) < size


class TestLarge:
    def test_a_gibibyte_there_and_back_takes_little_memory(
        self, machine: Machine, tmp_path: Path
    ) -> None:
        with (tmp_path / "large").open("wb") as file:
            for number in range(1 << 10):
                file.write(number.to_bytes(4) + ANY_BYTES[4 : 1 << 20])
        # Where nothing is in memory, as /tmp may be.
        large = machine.succeed("mktemp -p /var/tmp").strip()
        try:
            with at_most(100 << 20):
                machine.copy_from_host(tmp_path / "large", large)
                machine.copy_from_machine(large, "large")
        finally:
            machine.succeed(f"rm {large}")
        copied = machine.out_dir / "large" / Path(large).name
        assert filecmp.cmp(tmp_path / "large", copied, shallow=False)
        copied.unlink()
        (tmp_path / "large").unlink()

    @pytest.mark.parametrize("size", [LARGE - 1, LARGE, LARGE + 1])
    def test_whatever_way_it_goes_it_arrives_whole(
        self, machine: Machine, scratch: str, tmp_path: Path, size: int
    ) -> None:
        (tmp_path / "file").write_bytes(ANY_BYTES[:size])
        machine.copy_from_host(tmp_path / "file", f"{scratch}/file")
        machine.copy_from_machine(f"{scratch}/file", "whole")
        assert (machine.out_dir / "whole" / "file").read_bytes() == ANY_BYTES[:size]


class TestToMachine:
    def test_a_file_arrives_whole(self, machine: Machine, scratch: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(ANY_BYTES)
        machine.copy_from_host(str(tmp_path / "file"), f"{scratch}/file")
        digest = hashlib.sha256(ANY_BYTES).hexdigest()
        assert machine.succeed(f"sha256sum <{scratch}/file").split()[0] == digest

    def test_by_shell_it_has_no_limit(self, machine: Machine, scratch: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(ANY_BYTES)
        machine.copy_from_host_via_shell(tmp_path / "file", f"{scratch}/file")
        assert machine.succeed(f"wc -c <{scratch}/file").strip() == str(len(ANY_BYTES))

    def test_parents_are_made(self, machine: Machine, scratch: str, tree: Path) -> None:
        machine.copy_from_host(tree / "a file", f"{scratch}/new/one/file")
        assert machine.succeed(f"cat {scratch}/new/one/file") == "one\n"

    def test_a_file_replaces_another(self, machine: Machine, scratch: str, tree: Path) -> None:
        machine.succeed(f"echo older and longer >{scratch}/file")
        machine.copy_from_host(tree / "a file", f"{scratch}/file")
        assert machine.succeed(f"cat {scratch}/file") == "one\n"

    def test_modes_are_kept_and_root_owns_it(
        self, machine: Machine, scratch: str, tree: Path
    ) -> None:
        if os.geteuid() == 0:
            os.chown(tree / "inner" / "run", 4321, 4321)
        machine.copy_from_host(tree / "inner" / "run", f"{scratch}/run")
        machine.succeed(f"test $({scratch}/run) = ran")
        machine.succeed(f"test $(stat -c %a {scratch}/run) = 755")
        machine.succeed(f"test $(stat -c %u {scratch}/run) = $(id -u)")

    def test_a_directory_arrives_whole(self, machine: Machine, scratch: str, tree: Path) -> None:
        machine.copy_from_host(tree, f"{scratch}/copy")
        found = machine.succeed(f"cd {scratch}/copy; find . | sort").splitlines()
        assert found == [".", "./a file", "./inner", "./inner/run"]

    def test_into_a_directory_it_goes_under_its_name(
        self, machine: Machine, scratch: str, tree: Path
    ) -> None:
        machine.copy_from_host(tree, scratch)
        machine.copy_from_host(tree / "a file", f"{scratch}/")
        assert machine.succeed(f"ls {scratch}") == "a file\ntree\n"

    def test_links_are_followed(self, machine: Machine, scratch: str, tree: Path) -> None:
        (tree.parent / "link").symlink_to(tree / "a file")
        machine.copy_from_host(tree.parent / "link", f"{scratch}/file")
        assert machine.succeed(f"test ! -L {scratch}/file; cat {scratch}/file") == "one\n"

    def test_what_is_not_there_is_refused(self, machine: Machine, tmp_path: Path) -> None:
        with pytest.raises(MachineUsageError, match=f"{tmp_path}/none does not exist"):
            machine.copy_from_host(tmp_path / "none", "/tmp/none")

    def test_where_it_cannot_be_written_it_fails(self, machine: Machine, tree: Path) -> None:
        with pytest.raises(CommandFailed):
            machine.copy_from_host(tree, "/proc/nowhere/tree")


class TestFromMachine:
    def test_a_file_arrives_in_the_output_directory(self, machine: Machine, scratch: str) -> None:
        machine.succeed(f"seq 200000 >{scratch}/numbers")
        machine.copy_from_machine(f"{scratch}/numbers")
        text = (machine.out_dir / "numbers").read_text()
        assert text.splitlines() == [str(number) for number in range(1, 200_001)]

    def test_it_goes_to_a_directory_of_choice(self, machine: Machine, scratch: str) -> None:
        machine.succeed(f"echo one >{scratch}/file")
        machine.copy_from_machine(f"{scratch}/file", "some/where")
        assert (machine.out_dir / "some" / "where" / "file").read_text() == "one\n"

    def test_a_directory_arrives_whole(self, machine: Machine, scratch: str) -> None:
        machine.succeed(f"mkdir -p {scratch}/tree/inner; echo x >'{scratch}/tree/inner/a b'")
        machine.copy_from_machine(f"{scratch}/tree", target_dir="whole")
        assert (machine.out_dir / "whole" / "tree" / "inner" / "a b").read_text() == "x\n"

    def test_a_second_copy_is_merged_into_the_first(self, machine: Machine, scratch: str) -> None:
        machine.succeed(f"mkdir {scratch}/logs; echo 1 >{scratch}/logs/a; echo 1 >{scratch}/logs/b")
        machine.copy_from_machine(f"{scratch}/logs", "twice")
        machine.succeed(f"rm {scratch}/logs/b; echo 2 >{scratch}/logs/a")
        machine.copy_from_machine(f"{scratch}/logs", "twice")
        copied = machine.out_dir / "twice" / "logs"
        assert {file.name: file.read_text() for file in copied.iterdir()} == {
            "a": "2\n",
            "b": "1\n",
        }

    def test_by_its_older_name(self, machine: Machine, scratch: str) -> None:
        machine.succeed(f"echo one >{scratch}/older")
        machine.copy_from_vm(f"{scratch}/older", "by-older-name")
        assert (machine.out_dir / "by-older-name" / "older").read_text() == "one\n"

    def test_what_is_not_there_fails(self, machine: Machine, scratch: str) -> None:
        with pytest.raises(CommandFailed, match="No such file"):
            machine.copy_from_machine(f"{scratch}/none")


@pytest.fixture
def shared(machine: Machine) -> Iterator[Path]:
    """The shared directory, where there is one; it is left empty."""
    if not isinstance(machine.node, SharesDirectory):
        pytest.skip(f"{machine.backend} has no SharesDirectory")
    yield machine.shared_dir
    machine.succeed("find /tmp/shared -mindepth 1 -delete")


TMPFS = """
[Mount]
What=tmpfs
Where=/tmp
Type=tmpfs
[Install]
WantedBy=local-fs.target
"""
"""A /tmp in memory, as Debian has it from its 13th release on."""


class TestSharedDirectory:
    def test_copies_leave_nothing_in_it(
        self, machine: Machine, scratch: str, shared: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_bytes(ANY_BYTES)
        machine.copy_from_host(tmp_path / "file", f"{scratch}/file")
        machine.copy_from_machine(f"{scratch}/file", "nothing-left")
        assert list(shared.iterdir()) == []

    def test_a_machine_that_hides_it_can_be_copied_to(
        self, machine: Machine, scratch: str, shared: Path, system: None, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_bytes(ANY_BYTES)
        machine.succeed("mount -t tmpfs hidden /tmp/shared")
        try:
            machine.copy_from_host(tmp_path / "file", f"{scratch}/file")
            machine.copy_from_machine(f"{scratch}/file", "hidden")
        finally:
            machine.succeed("umount /tmp/shared")
        assert (machine.out_dir / "hidden" / "file").read_bytes() == ANY_BYTES

    def test_it_is_one_for_all_machines(
        self, machine: Machine, victim: Machine, shared: Path
    ) -> None:
        assert machine.shared_dir == victim.shared_dir
        (shared / "file").write_text("from the host\n")
        assert machine.succeed("cat /tmp/shared/file") == "from the host\n"
        assert victim.succeed("cat /tmp/shared/file") == "from the host\n"

    def test_what_a_machine_writes_all_have(
        self, machine: Machine, victim: Machine, shared: Path
    ) -> None:
        machine.succeed("mkdir /tmp/shared/d; echo 1 >/tmp/shared/d/file")
        victim.succeed("echo 2 >>/tmp/shared/d/file")
        assert (shared / "d" / "file").read_text() == "1\n2\n"
        assert machine.succeed("cat /tmp/shared/d/file") == "1\n2\n"

    def test_modes_and_links_are_kept(self, machine: Machine, shared: Path) -> None:
        machine.succeed(
            "cd /tmp/shared; umask 22; echo 'echo ran' >run; chmod 750 run; ln -s run link"
        )
        assert (shared / "run").stat().st_mode & 0o777 == 0o750
        assert os.readlink(shared / "link") == "run"
        (shared / "run").chmod(0o700)
        assert machine.succeed("stat -c %a /tmp/shared/run") == "700\n"

    def test_users_of_the_machine_may_read_it(
        self, machine: Machine, shared: Path, system: None
    ) -> None:
        machine.succeed("echo x >/tmp/shared/file; chmod 644 /tmp/shared/file")
        assert machine.succeed("setpriv --reuid=65534 cat /tmp/shared/file") == "x\n"

    def test_it_is_there_after_a_reboot_and_a_crash(self, victim: Machine, shared: Path) -> None:
        if not isinstance(victim.node, Reboots):
            pytest.skip(f"{victim.backend} has no Reboots")
        (shared / "file").write_text("kept\n")
        victim.reboot()
        assert victim.succeed("cat /tmp/shared/file") == "kept\n"
        victim.crash()
        assert victim.succeed("cat /tmp/shared/file") == "kept\n"

    def test_it_is_there_where_a_machine_has_a_tmp_of_its_own(
        self, victim: Machine, shared: Path, system: None
    ) -> None:
        (shared / "file").write_text("kept\n")
        unit = "/etc/systemd/system/tmp.mount"
        victim.succeed(f"cat >{unit} <<'EOF'{TMPFS}EOF", "systemctl enable tmp.mount")
        victim.shutdown()
        assert victim.succeed("stat -f -c %T /tmp; cat /tmp/shared/file") == "tmpfs\nkept\n"
        victim.succeed(f"systemctl disable tmp.mount; rm {unit}; sync")
        victim.crash()

    def test_it_goes_with_its_machines(
        self, conformance_target: Target, tmp_path: Path, shared: Path
    ) -> None:
        with opened(conformance_target, tmp_path) as other:
            alpha = other.machine("alpha")
            alpha.succeed("umask 77; mkdir -p /tmp/shared/d; echo x >/tmp/shared/d/file")
            its = alpha.shared_dir
            assert (its / "d" / "file").exists()
            assert not (shared / "d").exists()
        assert not its.exists()


class TestDirectories:
    def test_a_machine_has_a_directory_of_its_own(self, machine: Machine, victim: Machine) -> None:
        assert machine.state_dir.is_dir()
        assert machine.state_dir.name == "vm-state-alpha"
        assert machine.state_dir != victim.state_dir
        assert machine.state_dir.parent == machine.tmp_dir == victim.tmp_dir
        machine.cleanup_statedir()
