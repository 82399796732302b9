import pytest

pytest_plugins = ["pytester"]

COUNT = "def test_it(machines): assert len(machines) == {}\n"


@pytest.fixture
def nodes(project):
    """A project whose only test expects a number of machines of the role `node`."""

    def expect(number: int):
        project.composition("oar", roles="[roles.node]\n", test_it=COUNT.format(number))
        return project

    return expect


def ini(project, line: str) -> None:
    (project.root / "tox.ini").write_text(f"[pytest]\n{line}\n")


def test_an_option_comes_from_the_ini(nodes):
    project = nodes(2)
    ini(project, "nxc_role = node=2")
    project.run().assert_outcomes(passed=1)


def test_an_option_comes_from_native_toml(nodes):
    project = nodes(2)
    (project.root / "tox.ini").unlink()
    (project.root / "pytest.toml").write_text('[pytest]\nnxc_role = ["node=2"]\n')
    project.run().assert_outcomes(passed=1)


def test_the_environment_is_stronger_than_the_ini(nodes, monkeypatch):
    project = nodes(3)
    ini(project, "nxc_role = node=2")
    monkeypatch.setenv("NXC_ROLE", "node=3")
    project.run().assert_outcomes(passed=1)


def test_the_command_line_is_stronger_than_the_environment(nodes, monkeypatch):
    project = nodes(4)
    monkeypatch.setenv("NXC_ROLE", "node=3")
    project.run("--nxc-role=node=4").assert_outcomes(passed=1)


def test_an_empty_variable_says_nothing(nodes, monkeypatch):
    project = nodes(2)
    ini(project, "nxc_role = node=2")
    monkeypatch.setenv("NXC_ROLE", "")
    project.run().assert_outcomes(passed=1)


def test_a_file_in_the_ini_is_beside_the_ini(nodes, monkeypatch):
    project = nodes(2)
    (project.root / "counts.json").write_text('{"node": 2}')
    ini(project, "nxc_roles = counts.json")
    monkeypatch.chdir(project.root / "oar")
    project.run().assert_outcomes(passed=1)


def test_role_options_add_up(project):
    test = "def test_it(a1, a2, b1, b2, b3): pass\n"
    project.composition("x", roles="[roles.a]\n[roles.b]\n", test_it=test)
    project.run("--nxc-role=a=2", "--nxc-role", "b=3").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("variable", "value"), [("NXC_SUBTESTS", "never"), ("NXC_KEEP", "perhaps")]
)
def test_a_wrong_value_is_a_usage_error_that_says_where_it_stands(
    project, monkeypatch, variable, value
):
    monkeypatch.setenv(variable, value)
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {variable}: '{value}' is none of *"])


def test_an_unknown_backend_is_a_usage_error_that_names_the_installed_ones(nodes):
    result = nodes(1).run("--nxc-backend=dokcer")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --nxc-backend dokcer: *docker, fake*"])


def test_the_shell_mode_can_be_overridden(project):
    project.composition("oar", "server.succeed('false; true')", roles="[roles.server]\n")
    project.run().assert_outcomes(failed=1)
    project.run("--nxc-shell=nxc").assert_outcomes(passed=1)


def test_every_option_is_in_the_help_with_its_other_spellings(project):
    result = project.run("--help")
    for name in ("backend", "role", "roles", "mirror", "keep", "subtests", "shell"):
        result.stdout.fnmatch_lines([f"*--nxc-{name}*"])
        assert f"[NXC_{name.upper()}, ini: nxc_{name}" in " ".join(result.stdout.str().split())
