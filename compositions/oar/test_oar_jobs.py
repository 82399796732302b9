"""What users do with OAR: interactive jobs, cores, deployments, and what they must not do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Oar

    from nxc_testing.machine import Machine


def test_interactive_job_opens_a_shell_on_a_node_and_closes_it(oar: Oar, frontend: Machine) -> None:
    prompt = rf"user1@({'|'.join(oar.nodes)}):~\$ "

    with frontend.interact(
        oar.as_user("oarsub -I -l nodes=1,walltime=0:05"), timeout=120
    ) as terminal:
        terminal.expect(r"OAR_JOB_ID=\d+")
        job = oar.watch(terminal.match.group())
        terminal.expect(prompt)
        node = terminal.match.group(1)
        assert oar.state(job) == "Running"

        terminal.sendline("sort -u $OAR_NODEFILE | sed 's/^/reserved: /'")
        terminal.expect(r"reserved: (\w+)\r\n")
        assert terminal.match.group(1) == node

        terminal.expect(prompt)
        terminal.sendline("exit")
        terminal.expect(f"Disconnected from OAR job {job}")
        # oarsub tells the server only now; ended before, it leaves the job running.
        terminal.wait()

    oar.wait_for_state(job, "Terminated")


def test_job_is_confined_to_its_core(oar: Oar, cpusets: None) -> None:
    job = oar.submit(
        "-l core=1,walltime=0:05",
        "grep Cpus_allowed_list /proc/self/status; taskset --pid --cpu-list 0-1023 $$; nproc",
    )

    found = oar.output(job).splitlines()

    assigned = re.search(r"assigned_resources = (\d+)\n", oar.details(job))
    assert assigned, oar.details(job)
    resource = oar.frontend.succeed(f"oarnodes --resource {assigned[1]}")
    core = re.search(r"\bcpuset=(\d+)", resource)
    assert core, resource
    assert found[0] == f"Cpus_allowed_list:\t{core[1]}"
    # taskset asked for all cores, and got what the cpuset has of them.
    assert found[-2].endswith(f"new affinity list: {core[1]}")
    assert found[-1] == "1"


def test_deploy_job_runs_on_the_frontend_and_is_told_its_nodes(oar: Oar) -> None:
    job = oar.submit(
        f"-t deploy -l nodes={len(oar.nodes)},walltime=0:05", "hostname; sort -u $OAR_NODEFILE"
    )

    assert oar.output(job).split() == ["frontend", *sorted(oar.nodes)]


def test_deploy_job_leaves_its_nodes_alive(oar: Oar) -> None:
    job = oar.submit("-t deploy -l nodes=1,walltime=0:05", "true")

    oar.wait_for_state(job, "Terminated")

    assert oar.states() == {node: {"Alive"} for node in oar.nodes}


def test_job_is_killed_at_its_walltime(oar: Oar) -> None:
    job = oar.submit("-l core=1,walltime=0:0:5", "sleep 600; echo survived")

    oar.wait_for_state(job, "Error")

    assert "survived" not in oar.frontend.succeed(f"cat /users/user1/OAR.{job}.stdout")


def test_failed_job_keeps_its_exit_status(oar: Oar) -> None:
    job = oar.submit("-l core=1,walltime=0:05", "exit 7")

    oar.wait_for_state(job, "Terminated")

    assert "(7,0,0)" in oar.details(job)


def test_oarsh_enters_the_nodes_of_an_own_job(oar: Oar, frontend: Machine, cpusets: None) -> None:
    job = oar.submit(f"-l nodes={len(oar.nodes)},walltime=0:05", "sleep 300")
    oar.wait_for_state(job, "Running")

    for node in oar.nodes:
        found = frontend.succeed(oar.as_user(f"OAR_JOB_ID={job} oarsh {node} hostname"))
        assert found.strip() == node


def test_oarsh_is_refused_without_a_job(oar: Oar, frontend: Machine) -> None:
    status, output = frontend.execute(oar.as_user(f"oarsh {oar.nodes[0]} true 2>&1"))

    assert status != 0
    assert "Please set either a job id or a job key" in output


def test_oarsh_is_refused_into_the_job_of_another_user(
    oar: Oar, frontend: Machine, cpusets: None
) -> None:
    job = oar.submit("-l nodes=1,walltime=0:05", "sleep 300")
    oar.wait_for_state(job, "Running")
    line = f"OAR_JOB_ID={job} oarsh {oar.nodes[0]} true 2>&1"

    status, output = frontend.execute(oar.as_user(line, "user2"))

    assert status != 0
    assert f"seems like job {job} is not yours" in output


def test_plain_ssh_to_a_node_is_refused(oar: Oar, frontend: Machine, cpusets: None) -> None:
    ssh = "ssh -o BatchMode=yes -o ConnectTimeout=10"
    # The key is good: only the node refuses it.
    frontend.succeed(oar.as_user(f"{ssh} frontend true"))

    status, output = frontend.execute(oar.as_user(f"{ssh} {oar.nodes[0]} true 2>&1"))

    assert status == 255
    assert "Permission denied" in output
