import pytest

pytest_plugins = ["pytester"]

USES_SERVER = "def test_it(server): assert server.name == 'server'\n"


def collected(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line]


def test_a_directory_gives_its_script_and_the_tests_beside_it(project):
    project.composition("oar", "server.start()", test_more=USES_SERVER)
    result = project.run("--collect-only", "-q", "oar")
    assert collected(result) == ["oar/composition.toml::testScript", "oar/test_more.py::test_it"]


def test_a_composition_without_script_gives_the_tests_beside_it(project):
    project.composition("oar", test_more=USES_SERVER)
    result = project.run("--collect-only", "-q")
    assert collected(result) == ["oar/test_more.py::test_it"]


def test_a_script_named_on_the_command_line_runs_as_script(project):
    project.composition("oar", "server.start()")
    result = project.run("oar/test_script.py", "-v")
    result.stdout.fnmatch_lines(["oar/test_script.py::testScript PASSED*"])


def test_a_script_runs_by_its_node_id(project):
    project.composition("oar", "server.start()", test_more=USES_SERVER)
    result = project.run("oar/composition.toml::testScript")
    result.assert_outcomes(passed=1)


def test_fixtures_are_there_for_a_single_node_id(project):
    project.composition("oar", test_more=USES_SERVER)
    project.run("oar/test_more.py::test_it").assert_outcomes(passed=1)


def test_fixtures_are_there_in_a_subdirectory(project):
    project.composition("oar")
    project.composition("oar/deep", test_deep=USES_SERVER)
    (project.root / "oar/deep/composition.toml").unlink()
    project.run("oar/deep").assert_outcomes(passed=1)


def test_fixtures_are_there_in_a_package(project):
    project.composition("oar", __init__="", test_more=USES_SERVER)
    project.run("oar").assert_outcomes(passed=1)


def test_fixtures_are_there_when_the_root_is_the_composition(project):
    project.composition(".", "server.start()", test_more=USES_SERVER)
    project.run().assert_outcomes(passed=2)


def test_fixtures_are_unknown_outside_of_the_composition(project):
    project.composition("oar", "server.start()")
    (project.root / "test_outside.py").write_text(USES_SERVER)
    result = project.run()
    result.stdout.fnmatch_lines(["*fixture 'server' not found"])


def test_machines_of_one_name_in_two_compositions_do_not_clash(project):
    for name in ("a", "b"):
        test = f"def test_it(server, composition): assert composition.name == {name!r}\n"
        same = f"def test_same(server, driver): assert driver.composition.name == {name!r}\n"
        project.composition(name, **{f"test_{name}": test + same})
    project.run().assert_outcomes(passed=4)


def test_every_machine_has_a_fixture_by_name_and_alias(project):
    project.composition(
        "oar",
        test_more="""
def test_names(server, server1, my_node1, my_node2, machines, driver):
    assert server is server1 is driver.machine("server")
    assert [m.name for m in machines] == ["my-node1", "my-node2", "server"]
    assert [my_node1, my_node2, server] == list(machines)
""",
    )
    project.run().assert_outcomes(passed=1)


def test_a_lone_machine_is_also_called_machine(project):
    lone = "def test_it(machine, web): assert machine is web\n"
    project.composition("oar", roles="[roles.web]\n", test_more=lone)
    project.run().assert_outcomes(passed=1)


def test_machine_fixtures_may_be_used_by_wider_fixtures(project):
    project.composition(
        "oar",
        test_more="""
import pytest

@pytest.fixture(scope="module")
def name(server):
    return server.name

@pytest.fixture(scope="session")
def names(name_of_all):
    return name_of_all

@pytest.fixture(scope="session")
def name_of_all(machines):
    return [m.name for m in machines]

def test_it(name, names):
    assert name in names
""",
    )
    project.run().assert_outcomes(passed=1)


def test_a_conftest_can_override_a_machine(project):
    project.composition(
        "oar",
        conftest="""
import pytest

@pytest.fixture
def server(server):
    return f"my {server.name}"
""",
        test_more="def test_it(server): assert server == 'my server'\n",
    )
    project.run().assert_outcomes(passed=1)


def test_fixtures_explain_themselves(project):
    project.composition("oar", test_more=USES_SERVER)
    result = project.run("--fixtures", "oar")
    result.stdout.fnmatch_lines_random(
        [
            "server *",
            "    The machine `server` of oar.",
            "my_node2 *",
            "machines *",
            "driver *",
            "composition *",
        ]
    )


def test_a_wrong_composition_is_an_error_in_one_message(project):
    project.composition("good", test_good=USES_SERVER)
    project.composition("oar", test_more=USES_SERVER, roles="[roles.server]\ncuont = 2\n")
    result = project.run("--continue-on-collection-errors")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR collecting oar*", "*oar/composition.toml: *cuont*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*.py:[0-9]*")


def test_a_wrong_composition_is_told_for_a_single_file_too(project):
    project.composition("oar", test_more=USES_SERVER, roles="[roles.server]\ncuont = 2\n")
    result = project.run("oar/test_more.py")
    result.stdout.fnmatch_lines(["*oar/composition.toml: *cuont*"])
    result.stdout.no_fnmatch_line("*fixture 'server' not found*")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("", "*oar/test_script.py: the testScript is empty*"),
        ("# nothing\n'''or nearly'''\npass\n", "*oar/test_script.py: the testScript is empty*"),
        ("server.start()\nx = = 1\n", "*oar/test_script.py: line 2: this is not Python*"),
    ],
)
def test_a_script_that_cannot_run_is_an_error_before_any_machine(project, script, message):
    project.composition("oar", script)
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_missing_script_is_an_error(project):
    (project.composition("oar", "server.start()") / "test_script.py").unlink()
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*test_script.py*"])


def test_an_empty_script_passes_where_it_is_meant(project):
    directory = project.composition("oar", "", roles="allow_empty = true\n[roles.server]\n")
    assert (directory / "test_script.py").read_text() == ""
    project.run().assert_outcomes(passed=1)


def test_a_role_option_reaches_the_compositions_that_have_the_role(project):
    count = "def test_it(machines): assert len(machines) == {}\n"
    project.composition("a", test_a=count.format(6))
    project.composition("b", roles="[roles.web]\n", test_b=count.format(1))
    project.run("--nxc-role", "my-node=5").assert_outcomes(passed=2)


def test_a_role_option_for_no_composition_is_a_usage_error(project):
    project.composition("a", test_a=USES_SERVER)
    result = project.run("--nxc-role", "nodee=5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --nxc-role nodee=5: *there are my-node, server"])


def test_a_roles_file_changes_the_counts(project):
    (project.root / "roles.yaml").write_text("my-node: [alpha, beta]\n")
    project.composition("a", test_a="def test_it(alpha, beta): assert beta.name == 'beta'\n")
    project.run("--nxc-roles", "roles.yaml").assert_outcomes(passed=1)
