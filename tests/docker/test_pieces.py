"""What can be seen without an engine."""

from __future__ import annotations

import io
import itertools
import logging
import struct
import tarfile
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxc_testing.backends.docker.init import entrypoint
from nxc_testing.backends.docker.networks import dead_end
from nxc_testing.backends.docker.streams import STDERR, STDOUT, MuxDecoder
from nxc_testing.backends.docker.watch import Death
from nxc_testing.backends.host.provision import archive, hosts_file
from nxc_testing.backends.host.subnets import POOL, candidates, gateway
from nxc_testing.composition.identity import MachineFile
from nxc_testing.errors import ConfigError


def frame(stream: int, payload: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(payload)) + payload


@given(
    frames=st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=40))),
    sizes=st.lists(st.integers(1, 30), min_size=1),
)
def test_stdout_passes_however_the_stream_is_cut(
    frames: list[tuple[int, bytes]], sizes: list[int]
) -> None:
    stream = b"".join(frame(*one) for one in frames)
    decoder, passed, at = MuxDecoder("one"), b"", 0
    for size in itertools.cycle(sizes):
        if at >= len(stream):
            break
        passed += decoder.feed(stream[at : at + size])
        at += size
    assert passed == b"".join(payload for kind, payload in frames if kind == STDOUT)


def test_stderr_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "nxc_testing.docker"):
        assert MuxDecoder("one").feed(frame(STDERR, b"sh: oops")) == b""
    assert "one: shell: sh: oops" in caplog.text


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        (Death(129), "it rebooted"),
        (Death(130), "it powered off"),
        (Death(0), "it powered off"),
        (Death(137), "killed, exit code 137"),
        (Death(137, out_of_memory=True), "out of memory: the kernel killed it, exit code 137"),
        (
            Death(137, out_of_memory=True, killed_from_outside=True),
            "killed, exit code 137",
        ),
        (Death(139), "its init ended by signal 11 (Segmentation fault)"),
        (Death(1), "its init ended with exit code 1"),
    ],
)
def test_an_end_in_words(death: Death, reason: str) -> None:
    assert death.reason == reason


def test_only_the_restart_signal_is_a_reboot() -> None:
    assert [code for code in range(256) if Death(code).reboot] == [129]


def test_subnets_are_in_the_pool_and_all_different() -> None:
    found = list(itertools.islice(candidates(4), 2000))
    assert len(set(found)) == 2000
    assert all(one.subnet_of(POOL) and one.prefixlen == 24 for one in found)


@pytest.mark.parametrize(("machines", "prefix"), [(1, 24), (252, 24), (253, 23), (65532, 16)])
def test_a_subnet_has_room(machines: int, prefix: int) -> None:
    assert next(candidates(machines)).prefixlen == prefix


def test_too_many_machines_for_a_network_are_told() -> None:
    with pytest.raises(ConfigError, match="65533 machines do not fit"):
        next(candidates(65533))


def test_the_gateway_has_the_last_usable_address() -> None:
    assert str(gateway(IPv4Network("192.168.1.0/24"))) == "192.168.1.254"


def test_the_default_route_leads_to_nobody() -> None:
    lan = IPv4Network("192.168.1.0/24")
    assert str(dead_end(lan, [])) == "192.168.1.253"
    assert str(dead_end(lan, [IPv4Address("192.168.1.253")])) == "192.168.1.252"


def test_a_full_network_has_no_address_for_nobody() -> None:
    lan = IPv4Network("192.168.1.0/29")
    assert dead_end(lan, [lan[i] for i in range(1, 6)]) is None
    assert dead_end(lan, [lan[i] for i in range(2, 6)]) == lan[1]


def test_a_hosts_file_has_all_names_of_an_address_in_one_line() -> None:
    lines = hosts_file([("10.0.0.1", ("node", "node1")), ("10.0.0.2", ("server",))]).decode()
    assert lines.splitlines()[-2:] == ["10.0.0.1 node node1", "10.0.0.2 server"]


def test_an_images_own_command_is_pid_1() -> None:
    image = {"Entrypoint": ["/init"], "Cmd": ["--flag"]}
    assert entrypoint(image, 1)[-2:] == ["/init", "--flag"]


def test_systemd_is_pid_1_where_the_image_says_nothing() -> None:
    assert entrypoint({"Entrypoint": None, "Cmd": None}, 1)[-1] == "/lib/systemd/systemd"


def test_the_cgroups_that_systemd_makes_groups_in_are_made_writable() -> None:
    remount = "mount -o remount,bind,rw /sys/fs/cgroup"
    lines = [entrypoint({}, version)[2].splitlines() for version in (1, 2)]
    assert [remount in each for each in lines] == [False, True]
    assert [f"{remount}/systemd 2>/dev/null" in each for each in lines] == [True, False]


def test_an_archive_has_private_directories_for_private_files() -> None:
    files = {
        "/etc/nxc/role": MachineFile(b"node\n", 0o644),
        "/etc/nxc/secrets/key": MachineFile(b"k", 0o600),
    }
    with tarfile.open(fileobj=io.BytesIO(archive(files))) as tar:
        seen = {one.name: (one.mode, one.isdir(), one.uid) for one in tar}
    assert seen == {
        "etc/nxc": (0o755, True, 0),
        "etc/nxc/secrets": (0o700, True, 0),
        "etc/nxc/role": (0o644, False, 0),
        "etc/nxc/secrets/key": (0o600, False, 0),
    }
