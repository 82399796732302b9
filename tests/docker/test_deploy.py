"""What a deployment makes on the host, and that it goes away again."""

# ruff: noqa: F403

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from deploys import *
from docker_lab import docker, left_of, subnet_of
from machine_lab import Lab, boot, succeed, until

from nxc_testing.backends.docker import DockerBackend, making
from nxc_testing.backends.docker.links import LinkSwitch
from nxc_testing.backends.docker.node import DockerNode
from nxc_testing.backends.docker.removal import DISKS
from nxc_testing.backends.host import disks, storage
from nxc_testing.composition import Disk, Network, Volume
from nxc_testing.errors import DeploymentError, ImageError, Unsupported
from nxc_testing.events import Progress

FIXED = IPv4Network("10.99.77.0/24")
FIXED_LAN = (Network("lan", FIXED),)


def test_importing_the_backend_loads_no_sdk() -> None:
    code = "import sys, nxc_testing.backends.docker; sys.exit('docker' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("unix:///nonexistent/engine.sock", "there is no Docker engine at /nonexistent"),
        ("unix:///dev/null", "no Docker engine answers at /dev/null"),
        ("tcp://127.0.0.1:1", "does not answer"),
        ("ssh://host", "DOCKER_HOST=unix:///tmp/engine.sock"),
    ],
)
def test_an_engine_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, host: str, why: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    assert why in (DockerBackend().unavailable() or "")


def test_who_may_not_use_the_engine_is_told_what_to_do() -> None:
    if os.geteuid():
        pytest.skip("only root can try what another user may")
    code = (
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "from nxc_testing.backends.docker import DockerBackend;"
        "print(DockerBackend().unavailable())"
    )
    preload = "import nxc_testing.backends.docker.engine, encodings.idna;"
    done = subprocess.run(
        [sys.executable, "-c", preload + code], capture_output=True, text=True, check=True
    )
    assert "usermod -aG docker" in done.stdout


def test_subnets_of_two_deployments_are_different(lab: Lab) -> None:
    first, second = lab.deploy(lab.role("one")), lab.deploy(lab.role("one"))
    assert not subnet_of(first).overlaps(subnet_of(second))


def test_a_subnet_that_was_taken_meanwhile_is_passed_over(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = subnet_of(lab.deploy(lab.role("one")))
    free = IPv4Network("10.99.78.0/24")
    monkeypatch.setattr(making.networks, "occupants", lambda engine: [])
    monkeypatch.setattr(making.networks, "candidates", lambda machines: iter((taken, free)))
    assert subnet_of(lab.deploy(lab.role("one"))) == free


def test_a_fixed_subnet_gives_fixed_addresses(lab: Lab) -> None:
    deployment = lab.deploy(lab.role("one", count=2), networks=FIXED_LAN)
    assert [node.addresses["lan"] for node in deployment.nodes] == ["10.99.77.1", "10.99.77.2"]
    network = docker("network", "ls", "-q", "--filter", f"label={deployment.label}").strip()
    assert "10.99.77.254" in docker("network", "inspect", network)


def test_a_fixed_subnet_is_waited_for_and_its_holder_named(lab: Lab) -> None:
    holder, waiter = lab.session(), lab.session()
    first = lab.deploy(lab.role("one"), networks=FIXED_LAN, session=holder)
    said: list[str] = []
    waiter.events.subscribe(
        lambda event: said.append(event.message) if isinstance(event, Progress) else None
    )
    thread = threading.Thread(
        target=lambda: lab.deploy(lab.role("one"), networks=FIXED_LAN, session=waiter)
    )
    thread.start()
    until(lambda: said)
    assert holder.id in said[0]
    assert not left_of(waiter.id)
    first.close()
    thread.join(30)
    assert left_of(waiter.id)


def test_a_fixed_subnet_that_a_stranger_has_is_an_error_that_names_him(lab: Lab) -> None:
    docker("network", "create", "--subnet", "10.99.77.128/25", "nxc-test-stranger")
    try:
        with pytest.raises(DeploymentError, match="the Docker network nxc-test-stranger has"):
            lab.deploy(lab.role("one"), networks=FIXED_LAN)
    finally:
        docker("network", "rm", "nxc-test-stranger")
    lab.deploy(lab.role("one"), networks=FIXED_LAN)


@pytest.mark.parametrize("step", ["_make_volumes", "_make_disks", "_make_machine"])
def test_what_is_interrupted_leaves_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    session = lab.session()
    original: Callable[..., object] = getattr(making.Maker, step)

    def interrupted(*args: object) -> None:
        original(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(making.Maker, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.deploy(
            lab.role("one", count=2, disks=(Disk("vdb", 1 << 20),)),
            volumes=(Volume("users", "/users"),),
            session=session,
        )
    assert not left_of(session.id)
    assert not storage.directory_of(session.id, DISKS).exists()


def test_a_deployment_that_the_engine_refuses_leaves_nothing(lab: Lab) -> None:
    session = lab.session()
    image = docker("inspect", "-f", "{{.Image}}", lab.machine().container)
    docker("create", "--name", f"{session.id}-two", image, "true")
    try:
        with pytest.raises(DeploymentError, match=r"container of two: .*already in use"):
            lab.deploy(
                lab.role("one"),
                lab.role("two"),
                volumes=(Volume("users", "/users"),),
                session=session,
            )
    finally:
        docker("rm", f"{session.id}-two")
    assert not left_of(session.id)


def test_a_device_that_is_not_there_is_told_at_the_start(lab: Lab) -> None:
    node = lab.machine(devices=("/dev/no-such-device",))
    with pytest.raises(DeploymentError, match=r"one does not start: .*no-such-device"):
        node.start()


def test_an_image_that_is_not_there_is_told(lab: Lab) -> None:
    role = replace(lab.role("one"), image="nxc-testing/no-such-image:1")
    with pytest.raises(ImageError, match=r"role one: .*no image 'nxc-testing/no-such-image:1'"):
        lab.deploy(role)


def test_an_image_can_be_given_by_the_engines_name(lab: Lab) -> None:
    first = lab.machine()
    name = docker("inspect", "-f", "{{.Image}}", first.container)
    (node,) = lab.deploy(replace(lab.role("one"), image=name)).nodes
    boot(node)


class TestDisks:
    """Loop devices of the host; only root can have them."""

    @pytest.fixture(autouse=True)
    def _possible(self) -> None:
        if why := disks.obstacle():
            pytest.skip(why)

    @pytest.fixture
    def machine(self, lab: Lab) -> DockerNode:
        return lab.machine(disks=(Disk("vdb", 64 << 20), Disk("vdc", 32 << 20)))

    def test_a_disk_is_a_block_device_of_its_size(self, machine: DockerNode) -> None:
        boot(machine)
        sizes = "blockdev --getsize64 /dev/vdb /dev/vdc"
        assert succeed(machine, sizes).split() == [str(64 << 20), str(32 << 20)]

    def test_a_disk_is_empty_and_takes_no_room(self, machine: DockerNode, lab: Lab) -> None:
        boot(machine)
        succeed(machine, "cmp -n 1000000 /dev/vdb /dev/zero")
        files = storage.directory_of(lab.deployments[0].name, DISKS).glob("one-*")
        assert [file.stat().st_blocks for file in files] == [0, 0]

    def test_a_file_system_on_it_survives_a_crash(self, machine: DockerNode) -> None:
        boot(machine)
        succeed(machine, "mkfs.ext4 -q /dev/vdb; mount /dev/vdb /mnt; echo kept >/mnt/note; sync")
        machine.kill()
        boot(machine)
        assert succeed(machine, "mount /dev/vdb /mnt; cat /mnt/note") == "kept"

    def test_disks_are_detached_and_their_files_removed(self, lab: Lab) -> None:
        deployment = lab.deploy(lab.role("one", disks=(Disk("vdb", 64 << 20),)))
        boot(*deployment.nodes)
        succeed(deployment.nodes[0], "mkfs.ext4 -q /dev/vdb; mount /dev/vdb /mnt")
        assert deployment.name in subprocess.check_output(["losetup", "-a"], text=True)
        deployment.close()
        until(lambda: deployment.name not in subprocess.check_output(["losetup", "-a"], text=True))
        assert not storage.directory_of(deployment.name, DISKS).exists()

    def test_who_is_not_root_is_told(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        session = lab.session()
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(DeploymentError, match=r"roles.one.disks: loop devices need root"):
            lab.deploy(lab.role("one", disks=(Disk("vdb", 1 << 20),)), session=session)


class TestClose:
    def test_nothing_is_left(self, lab: Lab) -> None:
        deployment = lab.deploy(lab.role("one", count=2), volumes=(Volume("users", "/users"),))
        boot(*deployment.nodes)
        # Containers, a network, the volume, and the directory that all share.
        assert len(left_of(deployment.name)) == 5
        deployment.close()
        assert left_of(deployment.name) == []

    def test_whoever_waits_for_a_machine_is_told(self, lab: Lab) -> None:
        node = lab.machine()
        node.start()
        lab.deployments[0].close()
        assert node.boot is not None
        assert node.boot.ended.is_set()

    def test_it_may_be_called_twice(self, lab: Lab) -> None:
        deployment = lab.deploy(lab.role("one"))
        deployment.close()
        deployment.close()

    def test_a_frozen_machine_is_removed(self, lab: Lab) -> None:
        node = lab.machine()
        boot(node)
        node.freeze()
        lab.deployments[0].close()
        assert left_of(lab.deployments[0].name) == []

    def test_a_closed_deployment_starts_nothing(self, lab: Lab) -> None:
        node = lab.machine()
        lab.deployments[0].close()
        with pytest.raises(DeploymentError, match="closed"):
            node.start()

    def test_what_somebody_else_removed_is_no_failure(self, lab: Lab) -> None:
        node = lab.machine()
        docker("rm", "-fv", node.container)
        lab.deployments[0].close()

    def test_what_cannot_be_removed_is_told_and_the_rest_goes(self, lab: Lab) -> None:
        deployment = lab.deploy(lab.role("one"), volumes=(Volume("users", "/users"),))
        stranger = docker(
            "run",
            "-d",
            "--network=none",
            "-v",
            f"{deployment.name}-users:/users",
            docker("inspect", "-f", "{{.Image}}", deployment.nodes[0].container),
            "sleep",
            "600",
        )
        try:
            with pytest.raises(DeploymentError, match="removing volume"):
                deployment.close()
            assert left_of(deployment.name) == [f"{deployment.name}-users"]
        finally:
            docker("rm", "-f", stranger)
        deployment.close()
        assert left_of(deployment.name) == []

    def test_the_command_for_a_person_reaches_the_machine(self, lab: Lab) -> None:
        deployment = lab.deploy(lab.role("one"))
        boot(*deployment.nodes)
        command = deployment.access()[0].command.replace("-it", "-i")
        seen = subprocess.run(
            command, shell=True, input="hostname\n", capture_output=True, text=True, check=True
        )
        assert seen.stdout == "one\n"


def test_a_shared_directory_out_of_reach_is_refused_with_what_to_do(lab: Lab) -> None:
    engine = lab.deploy(lab.role("one")).engine
    links = LinkSwitch(engine, [], str)
    elsewhere = Path("/nonexistent/volumes/shared")
    node = DockerNode(
        engine, "none", "none", name="far", addresses={}, links=links, shared=elsewhere
    )
    with pytest.raises(Unsupported, match=f"far: shared_dir .*{elsewhere}.*copy_from_host"):
        node.shared_dir  # noqa: B018
