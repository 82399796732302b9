import textwrap

import pytest

pytest_plugins = ["pytester"]


def test_a_failure_shows_the_line_of_the_script_and_nothing_below_it(project):
    project.composition("oar", '# first\n\nserver.succeed("echo out; exit 3")\n')
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "oar/test_script.py:3: in <module>",
            '    server.succeed("echo out; exit 3")',
            "E   *CommandFailed: server: command `echo out; exit 3` failed (exit code 3)",
        ]
    )
    result.stdout.no_fnmatch_line("*nxc_testing/*.py*")
    result.stdout.no_fnmatch_line("*_pytest*")
    result.stdout.no_fnmatch_line("*importlib*")


def test_frames_of_the_driver_are_left_out_however_deep(project):
    project.composition("oar", "server.start()\nserver.node.kill()\nserver.execute('true')\n")
    result = project.run()
    result.stdout.fnmatch_lines(["oar/test_script.py:3: in <module>", "E *MachineDied: *"])
    result.stdout.no_fnmatch_line("*nxc_testing/*.py*")


def test_full_trace_shows_what_is_below(project):
    project.composition("oar", 'server.succeed("exit 3")\n')
    project.run("--full-trace").stdout.fnmatch_lines(["*nxc_testing/machine.py:*"])


def test_an_error_that_is_none_of_the_drivers_own_shows_where_it_came_up(project):
    project.composition("oar", "machines['nobody']\n")
    result = project.run()
    result.stdout.fnmatch_lines(
        ["oar/test_script.py:1: in <module>", "*nxc_testing/driver.py:*", "E   KeyError: *"]
    )


def test_functions_of_the_script_stand_in_the_traceback(project):
    script = "def check(n):\n    assert n == 2\n\nserver.start()\ncheck(1)\n"
    project.composition("oar", script)
    result = project.run()
    result.stdout.fnmatch_lines(
        [
            "oar/test_script.py:5: in <module>",
            "    check(1)",
            "oar/test_script.py:2: in check",
            "    assert n == 2",
            "E   assert 1 == 2",
        ]
    )


def test_assertions_are_explained(project):
    project.composition(
        "oar", 'seen = server.succeed("seq 3").split()\nassert seen == ["1", "3"]\n'
    )
    result = project.run()
    result.stdout.fnmatch_lines(["E   AssertionError: assert ['1', '2', '3'] == ['1', '3']"])


def test_assertions_are_explained_whatever_the_script_is_called(project):
    directory = project.composition("oar", "server.start()\nassert [1] == [2]\n")
    (directory / "test_script.py").rename(directory / "my-script.txt")
    toml = directory / "composition.toml"
    toml.write_text(toml.read_text().replace("test_script.py", "my-script.txt"))
    project.run().stdout.fnmatch_lines(["E   assert [[]1[]] == [[]2[]]", "E*At index 0 diff*"])


def test_assertions_are_plain_where_this_is_wanted(project):
    project.composition("oar", "server.start()\nassert [1] == [2]\n")
    result = project.run("--assert=plain")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*At index 0*")


def test_invalid_escapes_do_not_fail_a_run_where_warnings_are_errors(project):
    project.composition("oar", "assert server.succeed('X=1; echo \\$X') == '$X\\n'\n")
    project.run("-W", "error").assert_outcomes(passed=1, warnings=1)


def test_other_warnings_of_the_script_are_errors_where_this_is_wanted(project):
    project.composition("oar", "import warnings\nserver.start()\nwarnings.warn('mine')\n")
    project.run("-W", "error").stdout.fnmatch_lines(["E   UserWarning: mine"])


@pytest.mark.parametrize("script", ["x = 1\n", "if False:\n    server.start()\n"])
def test_a_script_that_used_no_machine_is_not_green(project, script):
    project.composition("oar", script)
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["TestScriptError: *test_script.py: the testScript ran no command*"]
    )


@pytest.mark.parametrize("script", ["start_all()\n", "server.succeed('true')\n"])
def test_a_script_that_used_a_machine_is_green(project, script):
    project.composition("oar", script)
    project.run().assert_outcomes(passed=1)


def test_a_script_that_only_waits_for_machines_started_before_is_green(project):
    test = "def test_start(driver): driver.start_all()\n"
    project.composition("oar", "server.wait_for_file('/etc')\n", test_a=test)
    project.run("oar/test_a.py", "oar/composition.toml").assert_outcomes(passed=2)


def test_an_exit_in_the_middle_is_not_green(project):
    project.composition("oar", "import sys\nserver.start()\nsys.exit(0)\nserver.fail('true')\n")
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["oar/test_script.py:3: in <module>", "E   SystemExit: 0"])


def test_a_script_can_define_dataclasses(project):
    project.composition(
        "oar",
        """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Job:
    id: int

server.succeed(f"test {Job(1).id} = 1")
""",
    )
    project.run().assert_outcomes(passed=1)


def test_scripts_of_two_compositions_see_their_own_machines_only(project):
    project.composition("a", "a1.start()\nassert 'b1' not in globals()\n", roles="[roles.a1]\n")
    project.composition("b", "b1.start()\nassert 'a1' not in globals()\n", roles="[roles.b1]\n")
    project.run().assert_outcomes(passed=2)


def test_upstreams_own_modules_can_be_imported(project):
    script = """\
    from test_driver.errors import RequestedAssertionFailed

    try:
        server.succeed("false")
    except RequestedAssertionFailed:
        pass
    else:
        raise SystemExit("nothing was raised")
    """
    project.composition("oar", textwrap.dedent(script))
    project.run().assert_outcomes(passed=1)
