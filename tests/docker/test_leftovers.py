"""What another process can find of a run in the engine, and take away."""

from __future__ import annotations

import threading

import pytest
from docker_lab import left_of
from machine_lab import Lab, boot, succeed

from nxc_testing.backends.base import Reaps
from nxc_testing.backends.docker import DockerBackend
from nxc_testing.backends.docker.deployment import DockerDeployment
from nxc_testing.backends.docker.removal import DISKS
from nxc_testing.backends.host import disks, storage
from nxc_testing.composition import Disk, Volume
from nxc_testing.errors import BackendUnavailable
from nxc_testing.runs.journal import Journal
from nxc_testing.session import Session


@pytest.fixture
def session(lab: Lab) -> Session:
    return lab.session()


@pytest.fixture
def deployment(lab: Lab, session: Session) -> DockerDeployment:
    disk = () if disks.obstacle() else (Disk("vdb", 1 << 20),)
    made = lab.deploy(
        lab.role("one", disks=disk),
        lab.role("two"),
        volumes=(Volume("users", "/users"),),
        session=session,
    )
    boot(*made.nodes)
    return made


def test_the_backend_can_reap() -> None:
    assert isinstance(DockerBackend(), Reaps)


def test_a_deployment_is_noted_before_it_is_made(lab: Lab, session: Session) -> None:
    before = Journal(session.directory).records()
    deployment = lab.deploy(lab.role("one"), session=session)
    (record,) = Journal(session.directory).records()
    assert before == []
    assert (record.backend, record.composition, record.machines) == ("docker", "lab", ["one"])
    assert record.identifier.endswith(deployment.name)


def test_a_closed_deployment_is_forgotten(lab: Lab, session: Session) -> None:
    lab.deploy(lab.role("one"), session=session).close()
    assert Journal(session.directory).records() == []


def test_a_run_is_found_by_its_labels(deployment: DockerDeployment, session: Session) -> None:
    found = [trace for trace in DockerBackend().traces() if trace.run == session.id]
    labelled = next(trace for trace in found if trace.machines)
    assert labelled.owner == str(session.owner)
    assert (labelled.composition, sorted(labelled.machines)) == ("lab", ["one", "two"])
    assert f"container {deployment.name}-one" in labelled.things
    assert f"volume {deployment.name}-users" in labelled.things
    assert labelled.made > 1e9


def test_everything_of_a_run_is_reaped(deployment: DockerDeployment, session: Session) -> None:
    removed = DockerBackend().reap(session.id, Journal(session.directory).records())
    assert f"container {deployment.name}-one" in removed
    assert left_of(deployment.name) == []
    assert not storage.directory_of(deployment.name, DISKS).exists()
    assert DockerBackend().reap(session.id, []) == []


def test_another_run_is_not_touched(lab: Lab, deployment: DockerDeployment) -> None:
    other = lab.session()
    (node,) = lab.deploy(lab.role("other"), session=other).nodes
    boot(node)
    DockerBackend().reap(deployment.name, [])
    assert succeed(node, "echo alive") == "alive"


def test_several_may_reap_at_once(deployment: DockerDeployment, session: Session) -> None:
    failures: list[BaseException] = []

    def reap() -> None:
        try:
            DockerBackend().reap(session.id, [])
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


def test_an_engine_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/engine.sock")
    with pytest.raises(BackendUnavailable, match="there is no Docker engine"):
        DockerBackend().traces()
