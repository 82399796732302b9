"""The same machines from pytest functions: a machine is a fixture, by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nxc_testing.machine import Machine

GET = "curl --silent --output /dev/null --max-time 2 --write-out '%{http_code}'"


@pytest.mark.parametrize(("path", "status"), [("/", "200"), ("/nothing", "404")])
def test_server_answers(server: Machine, client: Machine, path: str, status: str) -> None:
    server.wait_for_unit("hello")

    assert client.succeed(f"{GET} http://server{path}") == status


def test_new_page_is_served_at_once(server: Machine, client: Machine) -> None:
    server.wait_for_unit("hello")
    server.succeed("echo fresh >/srv/hello/new.txt")

    assert client.succeed("curl --fail --silent http://server/new.txt") == "fresh\n"


def test_server_comes_back_after_a_crash(server: Machine, client: Machine) -> None:
    server.crash()
    client.fail(f"{GET} http://server/")

    server.start()

    client.wait_until_succeeds("curl --fail --silent http://server/", timeout=60)
