"""A run that is not told what its machines are."""

import pytest

from nxc_testing.backends.nspawn import NspawnBackend

pytest_plugins = ["pytester"]


@pytest.fixture
def nodes(project, monkeypatch):
    """A composition, on a host without an engine and without KVM."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/engine.sock")
    monkeypatch.setenv("NXC_QEMU_ACCEL", "tcg")
    project.composition("x", roles="[roles.a]\n", test_it="def test_it(a): pass\n")
    return project


def test_the_choice_and_its_reason_are_in_the_header(nodes):
    if why := NspawnBackend().unavailable():
        pytest.skip(why)
    result = nodes.run("--nxc-backend=auto")
    result.stdout.fnmatch_lines(
        ["nxc: backend nspawn (auto: *; no docker, as there is no Docker engine at *), comp*"]
    )


@pytest.mark.parametrize("options", [[], ["-n1"]], ids=["alone", "under xdist"])
def test_a_host_that_can_use_none_is_a_usage_error_that_says_what_to_install(
    nodes, monkeypatch, options
):
    # Others find nothing there; pytest itself is started by its path.
    monkeypatch.setenv("PATH", str(nodes.root))
    result = nodes.run("--nxc-backend=auto", *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    for part in ("this host can use no backend", "no docker, as", "no qemu, as", "no nspawn, as"):
        assert part in text
