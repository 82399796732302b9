"""OAR's REST API: Apache on the frontend, port 6668, the user's password in his ~/.netrc."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Oar

URL = "http://frontend:6668/oarapi"


class Api:
    """The API as a user's curl sees it."""

    def __init__(self, oar: Oar):
        self._oar = oar

    def status(self, *arguments: str) -> int:
        """The HTTP status of a request."""
        code = self._curl("-o", "/dev/null", "-w", "%{http_code}", *arguments)
        return int(code)

    def json(self, *arguments: str) -> Any:  # noqa: ANN401 (it is JSON)
        """The answer to a request that must succeed."""
        return json.loads(self._curl("--fail-with-body", *arguments))

    def _curl(self, *arguments: str) -> str:
        line = shlex.join(["curl", "-sS", "--netrc", *arguments])
        return self._oar.frontend.succeed(self._oar.as_user(line))


@pytest.fixture
def api(oar: Oar) -> Api:
    oar.frontend.wait_for_unit("apache2")
    return Api(oar)


def test_resources_are_listed(oar: Oar, api: Api) -> None:
    found = {item["network_address"] for item in api.json(f"{URL}/resources.json")["items"]}

    assert found == set(oar.nodes)


def test_job_is_submitted_seen_and_listed(oar: Oar, api: Api) -> None:
    body = {"resource": "/core=1,walltime=0:05", "command": "sleep 300", "name": "by REST"}

    answer = api.json(
        "-H", "Content-Type: application/json", "-d", json.dumps(body), f"{URL}/jobs.json"
    )
    job = oar.watch(f"OAR_JOB_ID={answer['id']}")
    oar.wait_for_state(job, "Running")

    seen = api.json(f"{URL}/jobs/{job}.json")
    assert (seen["owner"], seen["state"], seen["name"]) == ("user1", "Running", "by REST")
    assert job in [item["id"] for item in api.json(f"{URL}/jobs.json")["items"]]


def test_job_is_deleted(oar: Oar, api: Api) -> None:
    job = oar.submit("-l core=1,walltime=0:05", "sleep 300")
    oar.wait_for_state(job, "Running")

    api.json("-X", "DELETE", f"{URL}/jobs/{job}.json")

    oar.wait_for_state(job, "Error")
    assert "FRAG_JOB_REQUEST" in oar.details(job)


def test_wrong_password_is_refused(api: Api) -> None:
    assert api.status("--netrc-file", "/dev/null", "-u", "user1:wrong", f"{URL}/jobs.json") == 401


def test_identity_cannot_be_claimed_by_a_header(oar: Oar, api: Api) -> None:
    headers = ["-H", "X-REMOTE-IDENT: oar", "-H", "X_REMOTE_IDENT: oar"]

    assert api.json(*headers, f"{URL}/whoami.json")["authenticated_user"] == "user1"
