import pytest

pytest_plugins = ["pytester"]

SCRIPT = """\
server.start()
with subtest("one"):
    server.succeed("true")
with subtest("two"):
    server.succeed("echo broken >&2; exit 3")
with subtest("three"):
    server.succeed("true")
server.succeed("true")
"""


def test_each_subtest_has_an_outcome_of_its_own(project):
    project.composition("oar", SCRIPT.replace("exit 3", "exit 0"))
    result = project.run("-v")
    result.stdout.fnmatch_lines(
        ["*SUBPASSED[[]one[]]*", "*SUBPASSED[[]two[]]*", "*SUBPASSED[[]three[]]*", "*1 passed*"]
    )


def test_the_first_failed_subtest_stops_the_script(project):
    project.composition("oar", SCRIPT)
    result = project.run("-v")
    result.stdout.fnmatch_lines(
        [
            "SUBFAILED[[]two[]] oar/composition.toml::testScript*",
            "FAILED oar/composition.toml::testScript - stopped at subtest 'two'*",
        ]
    )
    result.stdout.no_fnmatch_line("*SUBPASSED[[]three[]]*")


def test_the_failure_is_told_once_with_its_line(project):
    project.composition("oar", SCRIPT)
    result = project.run()
    result.stdout.fnmatch_lines(
        ["*testScript [[]two[]]*", "oar/test_script.py:5: in <module>", "*broken"]
    )
    lines = [line for line in result.outlines if line.startswith("oar/test_script.py:5:")]
    assert len(lines) == 1


def test_the_script_says_what_it_did_not_run_and_how_to_go_on(project):
    project.composition("oar", SCRIPT)
    result = project.run()
    expected = "stopped at subtest 'two'; not run: lines 6 to 8, with the subtest 'three'"
    result.stdout.fnmatch_lines([f"{expected} (--nxc-subtests=continue goes on)"])


def test_continue_goes_on_after_a_failed_subtest(project):
    project.composition("oar", SCRIPT)
    result = project.run("--nxc-subtests=continue", "-v")
    result.stdout.fnmatch_lines(["*SUBPASSED[[]three[]]*", "*contains 1 failed subtest*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        ("serverr.succeed('true')", "NameError"),
        ("server.suceed('true')", "AttributeError"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("driver.machine('nobody')", "ConfigError"),
        ("server.node.kill(); server.succeed('true')", "MachineDied"),
    ],
)
def test_continue_stops_where_the_next_subtest_would_tell_nothing(project, mistake, error):
    script = f"server.start()\nwith subtest('one'):\n    {mistake}\nwith subtest('two'): pass\n"
    project.composition("oar", script)
    result = project.run("--nxc-subtests=continue", "-v")
    result.stdout.fnmatch_lines([f"E*{error}*", "*stopped at subtest 'one'*'two'"])
    result.stdout.no_fnmatch_line("*SUBPASSED*")


@pytest.mark.parametrize(
    ("statement", "outcome"),
    [("import pytest; pytest.skip('not here')", "skipped"), ("pytest.xfail('known')", "xfailed")],
)
def test_continue_lets_a_subtest_end_the_whole_test_with_pytests_words(project, statement, outcome):
    script = f"import pytest\nserver.start()\nwith subtest('one'):\n    {statement}\nassert False\n"
    project.composition("oar", script)
    result = project.run("--nxc-subtests=continue")
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()[outcome] >= 1


def test_continue_obeys_exitfirst(project):
    project.composition("oar", SCRIPT)
    result = project.run("--nxc-subtests=continue", "-x", "-v")
    result.stdout.no_fnmatch_line("*SUBPASSED[[]three[]]*")
    result.stdout.fnmatch_lines(
        ["stopped at subtest 'two'; not run: *'three'", "!* stopping after *"]
    )


def test_a_nested_subtest_is_named_after_both(project):
    script = """\
server.start()
with subtest("outer"):
    with subtest("inner"):
        server.fail("true")
    server.succeed("true")
"""
    project.composition("oar", script)
    result = project.run()
    result.stdout.fnmatch_lines(
        [
            "*testScript [[]outer / inner[]]*",
            "E*unexpectedly succeeded*",
            "*testScript [[]outer[]]*",
            "stopped at subtest 'outer / inner'; not run: line 5*",
        ]
    )


def test_continue_goes_on_in_the_outer_subtest(project):
    script = """\
server.start()
with subtest("outer"):
    with subtest("inner"):
        assert 1 == 2
    with subtest("other"):
        server.succeed("true")
"""
    project.composition("oar", script)
    result = project.run("--nxc-subtests=continue", "-v")
    result.stdout.fnmatch_lines(
        [
            "*SUBFAILED[[]outer / inner[]]*",
            "*SUBPASSED[[]outer / other[]]*",
            "*SUBPASSED[[]outer[]]*",
        ]
    )


def test_a_script_may_catch_what_a_subtest_raises(project):
    script = """\
try:
    with subtest("one"):
        server.succeed("exit 3")
except MachineError as error:
    caught = error
assert "exit code 3" in str(caught)
"""
    project.composition("oar", f"from nxc_testing.errors import MachineError\n{script}")
    result = project.run()
    result.stdout.fnmatch_lines(["SUBFAILED[[]one[]]*", "*contains 1 failed subtest*"])


def test_subtests_of_test_functions_are_reported_likewise(project):
    test = """
def test_it(driver, server):
    with driver.subtest("one"):
        server.succeed("exit 3")
    with driver.subtest("two"):
        server.succeed("true")
"""
    project.composition("oar", test_more=test)
    result = project.run()
    result.stdout.fnmatch_lines(
        ["*test_it [[]one[]]*", "stopped at subtest 'one' (*continue goes on)"]
    )
    result = project.run("--nxc-subtests=continue", "-v")
    result.stdout.fnmatch_lines(["*SUBFAILED[[]one[]]*", "*SUBPASSED[[]two[]]*"])


def test_an_error_outside_of_subtests_is_told_in_full(project):
    project.composition("oar", SCRIPT.replace("exit 3", "exit 0") + "server.fail('true')\n")
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["oar/test_script.py:9: in <module>", "E*unexpectedly succeeded*"])
