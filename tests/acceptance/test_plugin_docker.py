"""The whole chain on the real Docker engine."""

import subprocess

import pytest

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
    """Containers, networks and volumes of a run."""
    label = ("--filter", f"label=nxc_testing.run={run}", "-q")
    return (
        docker("ps", "-a", *label)
        + docker("network", "ls", *label)
        + docker("volume", "ls", *label)
    )


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


def test_a_composition_runs_and_leaves_nothing(web):
    result = web.run("--nxc-backend=docker", "-v", timeout=600)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*SUBPASSED[[]boot[]]*", "*SUBPASSED[[]talk[]]*"])
    assert left_of(run_id(result)) == []


def test_kept_machines_are_reached_and_removed_as_the_summary_says(web):
    result = web.run("--nxc-backend=docker", "--nxc-keep", timeout=600)
    result.assert_outcomes(passed=2)
    start = result.outlines.index(next(x for x in result.outlines if "machines kept" in x))
    said = dict(line.split(": ", 1) for line in result.outlines[start + 1 :] if ": " in line)
    try:
        reach = said["server"].replace(" -it", "")
        assert web.shell(f"{reach} -c hostname") == "server\n"
    finally:
        web.shell(said["remove"])
    assert left_of(run_id(result)) == []
