"""The whole chain on real containers."""

import subprocess
from pathlib import Path

import pytest

from nxc_testing import backends

pytest_plugins = ["pytester"]

IMAGE = '[image]\nname = "acceptance"\nextends = "base"\n'
SCRIPT = """\
start_all()
with subtest("boot"):
    for machine in machines:
        machine.wait_for_unit("multi-user.target")
with subtest("talk"):
    server.succeed("(echo hello | nc -l -p 1234) >&- 2>&- &")
    assert client.wait_until_succeeds("nc -w 2 server 1234 < /dev/null", timeout=60) == "hello\\n"
"""


def docker(*args: str) -> list[str]:
    return subprocess.run(
        ["docker", *args], check=True, capture_output=True, text=True
    ).stdout.split()


def left_of(run: str) -> list[str]:
    """Containers, networks and volumes of a run, and what it has on the host."""
    label = ("--filter", f"label=nxc_testing.run={run}", "-q")
    found = [str(path) for path in Path("/var/tmp").glob(f"{run}*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{run}*")]
    if backends.create("docker").unavailable():
        return found
    return (
        docker("ps", "-a", *label)
        + docker("network", "ls", *label)
        + docker("volume", "ls", *label)
        + found
    )


@pytest.fixture(params=["docker", "nspawn"])
def backend(request):
    if why := backends.create(request.param).unavailable():
        pytest.skip(why)
    return request.param


def run_id(result: pytest.RunResult) -> str:
    (line,) = (line for line in result.outlines if line.startswith("nxc: backend"))
    return line.split("run ")[1].split(",")[0]


@pytest.fixture
def web(project):
    """A composition of two machines, with a script and a test beside it."""
    test = "def test_os(server, client): assert server.succeed('hostname') == 'server\\n'\n"
    roles = '[roles.server]\nimage = "image.toml"\n[roles.client]\nimage = "image.toml"\n'
    directory = project.composition("web", SCRIPT, roles=roles, test_os=test)
    (directory / "image.toml").write_text(IMAGE)
    return project


def test_a_composition_runs_and_leaves_nothing(web, backend):
    result = web.run(f"--nxc-backend={backend}", "-v", timeout=600)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*SUBPASSED[[]boot[]]*", "*SUBPASSED[[]talk[]]*"])
    assert left_of(run_id(result)) == []


def test_kept_machines_are_reached_and_removed_as_the_summary_says(web, backend):
    result = web.run(f"--nxc-backend={backend}", "--nxc-keep", timeout=600)
    result.assert_outcomes(passed=2)
    start = result.outlines.index(next(x for x in result.outlines if "machines kept" in x))
    said = dict(line.split(": ", 1) for line in result.outlines[start + 1 :] if ": " in line)
    try:
        reach = said["server"].replace(" -it", "")
        assert web.shell(f"{reach} -c hostname") == "server\n"
    finally:
        web.shell(said["remove"])
    assert left_of(run_id(result)) == []
