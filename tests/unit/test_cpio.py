"""Archives for the kernel's initial RAM disk, as cpio reads them."""

from __future__ import annotations

import stat

from nxc_testing.images import cpio


def read(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """The members of an archive, by the format's description in the kernel's documentation."""
    found, at = {}, 0
    while archive[at:]:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_at = at + 110
        name = archive[name_at : name_at + fields[11] - 1].decode()
        data_at = -(-(name_at + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            assert archive[data_at:].strip(b"\0") == b""
            return found
        found[name] = fields[1], archive[data_at : data_at + fields[6]]
        at = -(-(data_at + fields[6]) // 4) * 4
    raise AssertionError("there is no trailer")


def test_members_are_as_they_were_given() -> None:
    archive = cpio.pack(
        {
            "a": cpio.file(b"odd", 0o600),
            "link": cpio.link("/dev/null"),
            "fifo": cpio.Member(stat.S_IFIFO | 0o600),
            "empty": cpio.DIRECTORY,
        }
    )
    assert read(archive) == {
        "a": (0o100600, b"odd"),
        "empty": (0o040755, b""),
        "fifo": (0o010600, b""),
        "link": (0o120777, b"/dev/null"),
    }


def test_directories_come_before_what_is_in_them() -> None:
    names = list(read(cpio.pack({"x/y/z": cpio.file(b"")})))
    assert names == ["x", "x/y", "x/y/z"]


def test_a_directory_keeps_its_own_mode() -> None:
    members = {"private": cpio.Member(stat.S_IFDIR | 0o700), "private/key": cpio.file(b"k")}
    assert read(cpio.pack(members))["private"] == (0o040700, b"")


def test_one_can_stand_behind_another() -> None:
    assert len(cpio.pack({"a": cpio.file(b"123")})) % 4 == 0
