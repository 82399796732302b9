"""Markers: what a test needs of the machines."""

import pytest

pytest_plugins = ["pytester"]

LONE = "[roles.web]\n"


TEST = """
import pytest

@pytest.mark.nxc_needs(*{})
def test_it(web):
    web.start()
    web.freeze()
    web.thaw()
"""


def needs(*names: str) -> str:
    return TEST.format(names)


def test_a_test_is_skipped_where_the_backend_cannot_do_what_it_needs(project):
    project.composition("oar", roles=LONE, test_it=needs("Freezes", "Links"))
    result = project.run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        ["SKIPPED * backend fake cannot do this (Links): cut the network, and restore it"]
    )


def test_a_composition_is_skipped_where_the_backend_cannot_do_what_it_needs(project):
    tests = "def test_it(web): pass\ndef test_other(): pass\n"
    directory = project.composition("oar", "web.start()", roles=LONE, test_it=tests)
    head = '[composition]\nimage = "none"\nneeds = ["Freezes", "OwnKernel"]\n'
    script = '[test_script]\nfile = "test_script.py"\n'
    (directory / "composition.toml").write_text(f"{head}{script}{LONE}")
    result = project.run("-rs")
    # A test that needs no machines runs anywhere.
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED * backend fake cannot do this (OwnKernel): *"])


def test_a_composition_that_needs_what_is_no_capability_is_an_error(project):
    directory = project.composition("oar", roles=LONE, test_it="def test_it(web): pass\n")
    head = '[composition]\nimage = "none"\nneeds = ["OwnKernal"]\n'
    (directory / "composition.toml").write_text(f"{head}{LONE}")
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*composition.needs: there is no capability 'OwnKernal'*"])


def test_a_test_runs_where_the_backend_can(project):
    project.composition("oar", roles=LONE, test_it=needs("Freezes"))
    project.run().assert_outcomes(passed=1)


def test_what_is_no_capability_is_an_error_of_usage(project):
    project.composition("oar", roles=LONE, test_it=needs("Frezes"))
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: oar/test_it.py::test_it: nxc_needs('Frezes'): no such capability*Freezes*"]
    )


def test_the_marker_is_known(project):
    project.composition("oar", roles=LONE, test_it=needs("Freezes"))
    project.run("--strict-markers").assert_outcomes(passed=1)
    project.run("--markers").stdout.fnmatch_lines(["@pytest.mark.nxc_needs(capability, ...): *"])
