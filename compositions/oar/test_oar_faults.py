"""Machines of the cluster that die, and come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Oar

    from nxc_testing.machine import Machine


def test_crashed_node_is_suspected_and_comes_back(oar: Oar, node2: Machine) -> None:
    alive = dict.fromkeys(oar.nodes, "Alive")
    node2.crash()
    try:
        oar.wait_for_nodes({**alive, "node2": "Suspected"})
        waiting = oar.submit(f"-l nodes={len(oar.nodes)},walltime=0:05", "sort -u $OAR_NODEFILE")
    finally:
        node2.start()

    oar.wait_for_nodes(alive)
    assert oar.output(waiting).split() == sorted(oar.nodes)
    assert node2.succeed("systemctl is-system-running --wait").strip() == "running"


def test_server_keeps_its_jobs_over_a_crash(oar: Oar, server: Machine) -> None:
    job = oar.submit("-l core=1,walltime=0:05", "sleep 20; echo finished")
    oar.wait_for_state(job, "Running")

    server.crash()
    server.start()
    server.wait_for_unit("oar-server")

    assert oar.output(job) == "finished\n"
