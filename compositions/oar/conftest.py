"""What the tests of this composition share: the OAR cluster as its users see it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nxc_testing.composition import Composition
    from nxc_testing.driver import Driver
    from nxc_testing.machine import Machine

ENDED = {"Terminated", "Error"}


class Oar:
    """Jobs and resources, by OAR's own commands on the frontend.

    :ivar nodes: the names of the compute nodes.
    """

    def __init__(self, driver: Driver, frontend: Machine, nodes: list[str]):
        self.driver, self.frontend, self.nodes = driver, frontend, nodes
        self._jobs: list[int] = []

    def as_user(self, command: str, user: str = "user1") -> str:
        """A command line that runs a command as a user, in his home."""
        return f"su - {user} -c {shlex.quote(command)}"

    def submit(self, options: str, command: str = "", user: str = "user1") -> int:
        """Submit a job; what is left of it at the end of the test is deleted.

        :param options: of oarsub, `-l` among them.
        :return: the job's number.
        """
        line = f"oarsub {options} {shlex.quote(command)}"
        return self.watch(self.frontend.succeed(self.as_user(line, user)))

    def watch(self, output: str) -> int:
        """The number of the job in what oarsub printed; it is deleted like those of `submit`."""
        found = re.search(r"OAR_JOB_ID=(\d+)", output)
        assert found, output
        self._jobs.append(int(found[1]))
        return int(found[1])

    def state(self, job: int) -> str:
        """The state of a job, like `Running`."""
        return self.frontend.succeed(f"oarstat -j {job} -s").partition(":")[2].strip()

    def wait_for_state(self, job: int, wanted: str, timeout: float = 300) -> None:
        """Wait until a job is in a state; a job that ended otherwise fails at once."""

        def reached(last_try: bool) -> bool:
            now = self.state(job)
            over = last_try or now in ENDED
            assert now == wanted or not over, f"not {wanted}, but:\n{self.details(job)}"
            return now == wanted

        self.driver.retry(reached, timeout=timeout)

    def details(self, job: int) -> str:
        """All that OAR knows about a job."""
        return self.frontend.succeed(f"oarstat -j {job} -f")

    def output(self, job: int, user: str = "user1") -> str:
        """What a job printed, once it has ended."""
        self.wait_for_state(job, "Terminated")
        return self.frontend.succeed(f"cat /users/{user}/OAR.{job}.stdout")

    def states(self) -> dict[str, set[str]]:
        """For every node the states that its resources have."""
        listing = self.frontend.succeed("oarnodes --state")
        nodes = re.findall(r"^(\S+)\n((?: +\d+ : .*\n)+)", listing, re.MULTILINE)
        return {host: set(re.findall(r" : (\w+)", resources)) for host, resources in nodes}

    def wait_for_nodes(self, wanted: dict[str, str], timeout: float = 300) -> None:
        """Wait until every node has the state that is wanted for it."""

        def reached(last_try: bool) -> bool:
            now = self.states()
            good = now == {host: {state} for host, state in wanted.items()}
            assert good or not last_try, f"nodes are {now}, not {wanted}"
            return good

        self.driver.retry(reached, timeout=timeout)

    def delete_jobs(self) -> None:
        """Delete the jobs that have not ended, and wait for their end."""
        for job in self._jobs:
            if self.state(job) not in ENDED:
                self.frontend.execute(f"oardel {job}")
        for job in self._jobs:
            self.frontend.wait_until_succeeds(
                f"oarstat -j {job} -s | grep -E '{'|'.join(ENDED)}'", timeout=120
            )


@pytest.fixture
def oar(
    driver: Driver, frontend: Machine, server: Machine, composition: Composition
) -> Iterator[Oar]:
    """The cluster with all nodes Alive."""
    nodes = [host.name for host in composition.instances() if host.role.name == "node"]
    driver.start_all()
    server.wait_for_unit("oar-server")
    frontend.wait_for_unit("oar-node")
    oar = Oar(driver, frontend, nodes)
    oar.wait_for_nodes(dict.fromkeys(nodes, "Alive"))
    yield oar
    oar.delete_jobs()


@pytest.fixture
def cpusets(oar: Oar) -> None:
    """Skip where the host's cgroups give OAR no cpusets, with the reason that the boot left."""
    missing, reason = oar.frontend.execute("cat /run/nxc-oar/no-cpusets")
    if missing == 0:
        pytest.skip(reason.strip())
