"""`ci/gitlab/nxc-testing.yml` in pipelines that gitlab-ci-local runs, each job in a shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

import platformdirs
import pytest
from filelock import FileLock
from run_lab import BIN

from nxc_testing.backends.docker import DockerBackend

ROOT = Path(__file__).parents[2]
JOB = "ci/gitlab/nxc-testing.yml"
VERSION = "4.61.1"
"""Of gitlab-ci-local: later ones need Node 22; this one runs with Debian 12's Node 18."""

NODE = 18
COLOURS = re.compile(r"\x1b\[[\d;]*m")
ROLES = '[composition]\nimage = "none"\n[test_script]\nfile = "test_script.py"\n[roles.server]\n'

COMPOSITIONS = {
    "green": "with subtest('boot'):\n    server.succeed('true')\n",
    "red": "server.succeed('echo broken >&2; exit 3')\n",
}

PIPELINE = f"""
include:
  - local: {JOB}
.fake:
  extends: .nxc-testing
  variables:
    NXC_PACKAGE: {ROOT}
    NXC_BACKEND: fake
green:
  extends: .fake
  variables:
    NXC_COMPOSITION: compositions/green
red:
  extends: .fake
  variables:
    NXC_COMPOSITION: compositions/red
nothing to test:
  extends: .fake
docker:
  extends: .nxc-testing
  variables:
    NXC_PACKAGE: {ROOT}
    NXC_CACHE_DIR: {os.environ.get("NXC_CACHE_DIR") or platformdirs.user_cache_dir("nxc_testing")}
    NXC_COMPOSITION: compositions/hello
    NXC_PYTEST_ARGS: -k testScript -v
"""


@dataclass
class Pipeline:
    """A repository whose jobs can be run.

    :ivar output: what the last run printed.
    :ivar status: its exit status.
    """

    root: Path
    program: Path
    environment: dict[str, str]
    output: str = ""
    status: int = -1

    def run(self, *jobs: str) -> None:
        """Run jobs, as in copies of the repository that only artifacts come out of."""
        done = subprocess.run(
            [
                self.program,
                *("--home", self.root.parent),
                *("--force-shell-executor", "--shell-isolation", "--max-job-name-padding=0"),
                *jobs,
            ],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.output, self.status = COLOURS.sub("", done.stdout), done.returncode

    def outcomes(self) -> dict[str, str]:
        """PASS or FAIL for each job of the last run."""
        found = re.findall(r"^ (PASS|FAIL) +(.*?) *$", self.output, re.M)
        return {job: outcome for outcome, job in found}

    def kept(self, job: str) -> Path:
        """The directory of a job's artifacts."""
        return self.root / ".gitlab-ci-local/artifacts" / job

    def cases(self, job: str) -> dict[str, str]:
        """How each test of a job's JUnit report ended."""
        report = ElementTree.parse(self.kept(job) / "nxc-junit.xml")
        return {
            f"{case.get('classname')}::{case.get('name')}": case[0].tag if len(case) else "passed"
            for case in report.iter("testcase")
        }


def missing(what: str) -> NoReturn:
    """Give up: in CI a tool that is not there is a failure."""
    if os.environ.get("NXC_CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def gitlab_ci_local() -> Path:
    """The program, installed once into the user's cache."""
    for tool in ("node", "npm", "rsync", "git"):
        if shutil.which(tool) is None:
            missing(f"{tool} is not installed: `apt-get install git npm rsync`")
    node = subprocess.check_output(["node", "--version"], text=True).strip()
    if int(re.findall(r"\d+", node)[0]) < NODE:
        missing(f"gitlab-ci-local needs Node {NODE} or later; this is {node}")
    place = platformdirs.user_cache_path("nxc_testing") / f"gitlab-ci-local-{VERSION}"
    program = place / "node_modules/.bin/gitlab-ci-local"
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if not program.exists():
            # It is there as a whole or not at all.
            with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
                install(Path(scratch, "whole"))
                Path(scratch, "whole").rename(place)
    return program


def install(place: Path) -> None:
    """Let npm install it in a directory; skip if the registry is out of reach."""
    command = ["npm", "install", "--loglevel=error", "--no-audit", "--no-fund", "--prefix", place]
    done = subprocess.run(
        [*command, f"gitlab-ci-local@{VERSION}"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        missing(f"npm cannot install gitlab-ci-local: {done.stderr.strip()}")


@pytest.fixture(scope="module")
def repository(
    tmp_path_factory: pytest.TempPathFactory, gitlab_ci_local: Path
) -> Iterator[Pipeline]:
    """A repository with compositions and the job of ours."""
    root = tmp_path_factory.mktemp("gitlab") / "project"
    for name, script in COMPOSITIONS.items():
        directory = root / "compositions" / name
        directory.mkdir(parents=True)
        (directory / "composition.toml").write_text(ROLES)
        (directory / "test_script.py").write_text(script)
    shutil.copytree(ROOT / "compositions/hello", root / "compositions/hello")
    (root / JOB).parent.mkdir(parents=True)
    shutil.copy(ROOT / JOB, root / JOB)
    (root / ".gitlab-ci.yml").write_text(PIPELINE)
    user = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    for command in (["init", "--quiet"], ["add", "."], [*user, "commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    own = {name: value for name, value in os.environ.items() if not name.startswith("NXC_")}
    with tempfile.TemporaryDirectory(prefix="nxc-", dir="/tmp") as runtime:
        environment = own | {"PATH": f"{BIN}:{own['PATH']}", "XDG_RUNTIME_DIR": runtime}
        yield Pipeline(root, gitlab_ci_local, environment)
        assert list(Path(runtime).glob("nxc_testing/runs/*")) == []


@pytest.fixture(scope="module")
def pipeline(repository: Pipeline) -> Pipeline:
    """After a pipeline of jobs that need no engine, one of which passes."""
    repository.run("green", "red", "nothing to test")
    return repository


def test_a_pipeline_with_a_failed_job_fails(pipeline: Pipeline) -> None:
    assert pipeline.status == 1, pipeline.output


def test_a_green_composition_is_a_passed_job(pipeline: Pipeline) -> None:
    assert pipeline.outcomes()["green"] == "PASS", pipeline.output


def test_a_red_composition_is_a_failed_job(pipeline: Pipeline) -> None:
    assert pipeline.outcomes()["red"] == "FAIL", pipeline.output


def test_a_passed_job_keeps_its_junit_report(pipeline: Pipeline) -> None:
    assert pipeline.cases("green") == {"compositions.green.composition.toml::testScript": "passed"}


def test_a_failed_job_keeps_its_junit_report(pipeline: Pipeline) -> None:
    assert pipeline.cases("red") == {"compositions.red.composition.toml::testScript": "failure"}


def test_the_junit_report_tells_why(pipeline: Pipeline) -> None:
    failure = (pipeline.kept("red") / "nxc-junit.xml").read_text()
    assert "server: command `echo broken &gt;&amp;2; exit 3` failed (exit code 3)" in failure


def test_a_failed_job_keeps_what_its_machines_did(pipeline: Pipeline) -> None:
    (log,) = pipeline.kept("red").glob("nxc-artifacts/latest/*/commands.log")
    assert "echo broken" in log.read_text()


def test_a_failed_job_keeps_its_cache(pipeline: Pipeline) -> None:
    """Or an image would be built again until the tests are green."""
    assert "red cache created in '.gitlab-ci-local/cache/nxc-red'" in pipeline.output


def test_jobs_do_not_share_a_cache(pipeline: Pipeline) -> None:
    caches = {path.name for path in (pipeline.root / ".gitlab-ci-local/cache").iterdir()}
    assert {"nxc-green", "nxc-red"} <= caches


def test_a_job_without_a_composition_says_what_to_set(pipeline: Pipeline) -> None:
    said = "nothing to test > set NXC_COMPOSITION to a composition's directory\n"
    assert said in pipeline.output
    assert pipeline.outcomes()["nothing to test"] == "FAIL"


def test_a_composition_runs_on_docker(repository: Pipeline) -> None:
    if why := DockerBackend().unavailable():
        pytest.skip(why)
    repository.run("docker")
    assert repository.status == 0, repository.output
    assert "nxc: backend docker" in repository.output
    name = "compositions.hello.composition.toml::testScript"
    assert repository.cases("docker") == {name: "passed"}
