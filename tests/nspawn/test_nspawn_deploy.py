"""What a deployment makes on the host, and that it goes away again."""

# ruff: noqa: F403

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from deploys import *
from machine_lab import Deployment, Lab, Node, boot, run, succeed, until
from nspawn_lab import left_of

from nxc_testing.backends.base import Reaps
from nxc_testing.backends.host import disks, storage
from nxc_testing.backends.nspawn import NspawnBackend, cgroups, making
from nxc_testing.backends.nspawn.removal import KIND
from nxc_testing.composition import Disk, Network, Volume
from nxc_testing.errors import DeploymentError, ImageError
from nxc_testing.events import Progress
from nxc_testing.runs.journal import Journal
from nxc_testing.session import Session

FIXED_LAN = (Network("lan", IPv4Network("10.99.78.0/24")),)
USERS = (Volume("users", "/users"),)


@pytest.fixture
def session(lab: Lab) -> Session:
    return lab.session()


@pytest.fixture
def deployment(lab: Lab, session: Session) -> Deployment:
    made = lab.deploy(
        lab.role("one", disks=(Disk("vdb", 1 << 20),)),
        lab.role("two"),
        volumes=USERS,
        session=session,
    )
    boot(*made.nodes)
    return made


def test_subnets_of_two_deployments_are_different(lab: Lab) -> None:
    first, second = lab.deploy(lab.role("one")), lab.deploy(lab.role("one"))
    assert first.nodes[0].addresses != second.nodes[0].addresses


def test_a_fixed_subnet_gives_fixed_addresses(lab: Lab) -> None:
    deployment = lab.deploy(lab.role("one", count=2), networks=FIXED_LAN)
    assert [node.addresses["lan"] for node in deployment.nodes] == ["10.99.78.1", "10.99.78.2"]
    boot(deployment.nodes[0])
    succeed(deployment.nodes[0], "ping -c 1 -W 5 10.99.78.254")


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
    first.close()
    thread.join(30)
    assert left_of(waiter.id)


def test_a_fixed_subnet_that_somebody_has_is_an_error_that_names_the_device(lab: Lab) -> None:
    ip = ("ip", "link")
    subprocess.run([*ip, "add", "nxtest0", "type", "bridge"], check=True)
    try:
        address = ("ip", "address", "add", "10.99.78.200/25", "dev", "nxtest0")
        subprocess.run(address, check=True)
        with pytest.raises(DeploymentError, match="network device nxtest0 has"):
            lab.deploy(lab.role("one"), networks=FIXED_LAN)
    finally:
        subprocess.run([*ip, "delete", "nxtest0"], check=True)


@pytest.mark.parametrize(
    "step", ["_make_networks", "_make_volumes", "_make_disks", "_make_machine"]
)
def test_what_is_interrupted_leaves_nothing(
    lab: Lab, session: Session, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    original: Callable[..., object] = getattr(making.Maker, step)

    def interrupted(*args: object) -> None:
        original(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(making.Maker, step, interrupted)
    role = lab.role("one", count=2, disks=(Disk("vdb", 1 << 20),))
    with pytest.raises(KeyboardInterrupt):
        lab.deploy(role, volumes=USERS, session=session)
    assert left_of(session.id) == []
    assert session.id not in subprocess.check_output(["losetup", "-a"], text=True)


def test_an_image_that_is_no_recipe_is_told(lab: Lab) -> None:
    role = replace(lab.role("one"), image="debian:12")
    with pytest.raises(ImageError, match=r"role one: .*none called 'debian:12': name a recipe"):
        lab.deploy(role)


def test_a_device_that_is_not_there_is_told_at_the_start(lab: Lab) -> None:
    node = lab.machine(devices=("/dev/no-such-device",))
    with pytest.raises(DeploymentError, match=r"one does not start: .*no-such-device"):
        node.start()


def test_where_groups_do_not_limit_devices_a_machine_makes_no_nodes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on hosts with cgroup v2."""
    monkeypatch.setattr(cgroups, "limits_devices", lambda: False)
    node = lab.machine()
    boot(node)
    assert succeed(node, "systemctl is-system-running") == "running"
    assert run(node, "mknod /root/disk b 8 0")[0] != 0


class TestDisks:
    @pytest.fixture
    def machine(self, lab: Lab) -> Node:
        return lab.machine(disks=(Disk("vdb", 64 << 20), Disk("vdc", 32 << 20)))

    def test_a_disk_is_a_block_device_of_its_size(self, machine: Node) -> None:
        boot(machine)
        sizes = "blockdev --getsize64 /dev/vdb /dev/vdc"
        assert succeed(machine, sizes).split() == [str(64 << 20), str(32 << 20)]

    def test_a_file_system_on_it_survives_a_crash(self, machine: Node) -> None:
        boot(machine)
        succeed(machine, "mkfs.ext4 -q /dev/vdb; mount /dev/vdb /mnt; echo kept >/mnt/note; sync")
        machine.kill()
        boot(machine)
        assert succeed(machine, "mount /dev/vdb /mnt; cat /mnt/note") == "kept"

    def test_disks_are_detached_and_their_files_removed(self, machine: Node, lab: Lab) -> None:
        boot(machine)
        succeed(machine, "mkfs.ext4 -q /dev/vdb; mount /dev/vdb /mnt")
        name = lab.deployments[0].name
        assert name in subprocess.check_output(["losetup", "-a"], text=True)
        lab.deployments[0].close()
        until(lambda: name not in subprocess.check_output(["losetup", "-a"], text=True))


class TestClose:
    def test_nothing_is_left(self, deployment: Deployment) -> None:
        kinds = {path.split("/")[1] for path in left_of(deployment.name)}
        assert kinds == {"sys", "run", "var"}
        deployment.close()
        assert left_of(deployment.name) == []

    def test_whoever_waits_for_a_machine_is_told(self, deployment: Deployment) -> None:
        deployment.close()
        assert deployment.nodes[0].boot is not None
        assert deployment.nodes[0].boot.reason == "its deployment was closed"

    def test_it_may_be_called_twice(self, deployment: Deployment) -> None:
        deployment.close()
        deployment.close()

    def test_a_frozen_machine_is_removed(self, deployment: Deployment) -> None:
        deployment.nodes[0].freeze()
        deployment.close()
        assert left_of(deployment.name) == []

    def test_a_closed_deployment_starts_nothing(self, deployment: Deployment) -> None:
        deployment.close()
        with pytest.raises(DeploymentError, match="closed"):
            deployment.nodes[0].start()

    def test_what_nixos_makes_immutable_is_removed(self, deployment: Deployment) -> None:
        empty = deployment.nodes[0].directory / "root" / "var" / "empty"
        empty.mkdir(parents=True)
        subprocess.run(["chattr", "+i", empty], check=True)
        deployment.close()
        assert left_of(deployment.name) == []


class TestLeftovers:
    """What another process can find of a run, and take away."""

    def test_the_backend_can_reap(self) -> None:
        assert isinstance(NspawnBackend(), Reaps)

    def test_a_deployment_is_noted_until_it_is_closed(self, lab: Lab, session: Session) -> None:
        deployment = lab.deploy(lab.role("one"), session=session)
        (record,) = Journal(session.directory).records()
        assert (record.backend, record.composition, record.machines) == ("nspawn", "lab", ["one"])
        deployment.close()
        assert Journal(session.directory).records() == []

    def test_a_run_is_found_by_its_name(self, deployment: Deployment, session: Session) -> None:
        (trace,) = (trace for trace in NspawnBackend().traces() if trace.run == session.id)
        assert (trace.owner, trace.kept) == (str(session.owner), False)
        assert (trace.composition, sorted(trace.machines)) == ("lab", ["one", "two"])
        assert f"machine {deployment.name}-one" in trace.things
        assert trace.made > 1e9

    def test_everything_of_a_run_is_reaped(self, deployment: Deployment, session: Session) -> None:
        removed = NspawnBackend().reap(session.id, [])
        assert f"machine {deployment.name}-one" in removed
        assert left_of(deployment.name) == []
        assert not disks.devices(storage.directory_of(deployment.name, KIND))
        assert NspawnBackend().reap(session.id, []) == []

    def test_what_has_lost_its_directory_is_found_and_reaped(
        self, deployment: Deployment, session: Session
    ) -> None:
        subprocess.run(["rm", "-r", deployment.directory], check=True)
        assert session.id in [trace.run for trace in NspawnBackend().traces()]
        NspawnBackend().reap(session.id, [])
        assert left_of(deployment.name) == []

    def test_another_run_is_not_touched(self, lab: Lab, deployment: Deployment) -> None:
        (node,) = lab.deploy(lab.role("other"), session=lab.session()).nodes
        boot(node)
        NspawnBackend().reap(deployment.name, [])
        assert succeed(node, "echo alive") == "alive"

    def test_several_may_reap_at_once(self, deployment: Deployment, session: Session) -> None:
        failures: list[BaseException] = []

        def reap() -> None:
            try:
                NspawnBackend().reap(session.id, [])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=reap) for _ in range(3)]
        for thread in threads:
            thread.start()
        deployment.close()
        for thread in threads:
            thread.join()
        assert failures == []
        assert left_of(deployment.name) == []


def test_who_is_not_root_is_told(lab: Lab) -> None:
    code = (
        "import os; os.setuid(65534); from nxc_testing.backends.nspawn import NspawnBackend;"
        "print(NspawnBackend().unavailable())"
    )
    preload = "import nxc_testing.backends.nspawn.needs;"
    done = subprocess.run(
        [sys.executable, "-c", preload + code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "systemd-nspawn needs root: run as root\n"
