import json
import os

import pytest

pytest_plugins = ["pytester"]

LONE = "[roles.web]\n"


def test_the_header_tells_backend_composition_run_and_artifacts(project):
    project.composition("oar", "web.start()", roles=LONE)
    result = project.run()
    result.stdout.fnmatch_lines(
        [
            "nxc: backend fake, composition oar, run nxc-*",
            "nxc: artifacts nxc-artifacts/* (if a test fails)",
        ]
    )


@pytest.mark.parametrize("option", ["-q", "--collect-only"])
def test_there_is_no_header_where_it_is_not_wanted(project, option):
    project.composition("oar", "web.start()", roles=LONE)
    project.run(option).stdout.no_fnmatch_line("nxc: backend*")


def test_collecting_alone_makes_nothing(project):
    project.composition("oar", "web.start()", roles=LONE)
    project.run("--collect-only")
    assert os.listdir(project.runtime) == []


SLOW = """
import threading

def test_it(driver):
    print("captured", "output")
    driver.session.progress("image oar", "unpacking")
    thread = threading.Thread(target=driver.session.progress, args=("lock", "waiting for x"))
    thread.start()
    thread.join()
"""


def test_progress_is_shown_while_a_test_runs(project):
    project.composition("oar", roles=LONE, test_slow=SLOW)
    result = project.run()
    result.stdout.fnmatch_lines(
        ["oar/test_slow.py *", "image oar: unpacking", "lock: waiting for x"]
    )
    result.stdout.no_fnmatch_line("*captured output*")


def test_progress_after_an_outcome_begins_a_line(project):
    test = """
import pytest

@pytest.fixture
def slow(driver):
    driver.session.progress("volume", "mounting")
    yield
    driver.session.progress("volume", "unmounting")

def test_it(slow): pass
"""
    project.composition("oar", roles=LONE, test_slow=test)
    project.run().stdout.fnmatch_lines(["volume: unmounting"])


def test_progress_is_not_shown_in_quiet_runs(project):
    project.composition("oar", roles=LONE, test_slow=SLOW)
    result = project.run("-q")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*unpacking*")
    result.stdout.no_fnmatch_line("*waiting for x*")


def test_verbose_runs_show_commands(project):
    project.composition("oar", "web.succeed('echo out')\nweb.execute('exit 3')\n", roles=LONE)
    result = project.run("-v")
    result.stdout.fnmatch_lines(
        ["web: started*", "web: $ echo out", "web: $ exit 3", "web: exit code 3 after *"]
    )
    result.stdout.no_fnmatch_line("web: out")


def test_very_verbose_runs_show_outputs_and_consoles(project):
    project.composition("oar", "web.succeed('echo out; echo err >&2')", roles=LONE)
    result = project.run("-vv")
    result.stdout.fnmatch_lines(["web: fake machine web: boot 1", "web: $ echo out*"])
    result.stdout.fnmatch_lines_random(["web: out", "web: err"])


def test_a_command_repeated_by_hand_is_shown_once(project):
    project.composition("oar", "for i in range(9): web.execute('exit 3')", roles=LONE)
    lines = project.run("-v").outlines
    assert lines.count("web: $ exit 3") == 1


def test_a_failed_test_shows_the_commands_it_ran(project):
    project.composition(
        "oar",
        roles=LONE,
        test_it="""
def test_before(web):
    web.succeed("echo before")

def test_it(web):
    web.succeed("echo first")
    web.execute("echo out; echo err >&2; exit 3")
    assert 0
""",
    )
    result = project.run()
    result.stdout.fnmatch_lines(
        [
            "*nxc: last commands*",
            "web: $ echo first",
            "  exit code 0 after * s",
            "  stdout:",
            "    first",
            "web: $ echo out; echo err >&2; exit 3",
            "  exit code 3 after * s",
            "  stdout:",
            "    out",
            "  stderr:",
            "    err",
        ],
        consecutive=True,
    )
    result.stdout.no_fnmatch_line("*echo before*")


def test_a_command_is_told_with_the_first_failure_after_it(project):
    script = """
for name in ("one", "two"):
    with subtest(name):
        web.succeed(f"echo {name}; exit 3")
"""
    project.composition("oar", script, roles=LONE)
    lines = project.run("--nxc-subtests=continue").outlines
    assert [line for line in lines if line.startswith("web: $")] == [
        "web: $ echo one; exit 3",
        "web: $ echo two; exit 3",
    ]


def test_the_report_holds_the_last_commands_of_many(project):
    many = "def test_it(web):\n    for i in range(40): web.succeed(f'echo {i}')\n    assert 0\n"
    project.composition("oar", roles=LONE, test_it=many)
    result = project.run()
    result.stdout.fnmatch_lines(["(11 earlier ones are left out)", "web: $ echo 10"])
    result.stdout.no_fnmatch_line("web: $ echo 9")


def test_a_repeated_command_is_one_entry_of_the_report(project):
    many = "def test_it(web):\n    for i in range(40): web.execute('exit 3')\n    assert 0\n"
    project.composition("oar", roles=LONE, test_it=many)
    project.run().stdout.fnmatch_lines(["web: $ exit 3 (40 times; the last:)"])


def test_waits_stand_in_the_report(project):
    test = "def test_it(web): web.wait_for_file('/nonexistent', timeout=0.2)\n"
    project.composition("oar", roles=LONE, test_it=test)
    project.run().stdout.fnmatch_lines(["web: waited for file /nonexistent", "  *timed out*"])


def test_commands_of_a_failed_setup_stand_in_its_report(project):
    test = """
import pytest

@pytest.fixture
def ready(web):
    web.succeed("echo preparing; exit 3")

def test_it(ready): pass
"""
    project.composition("oar", roles=LONE, test_it=test)
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*nxc: last commands*", "web: $ echo preparing; exit 3"])


def test_events_of_a_test_stand_between_its_start_and_its_end(project):
    project.composition(
        "oar",
        roles=LONE,
        test_it="def test_a(web): web.succeed('true')\ndef test_b(web): web.succeed('false')\n",
    )
    project.run()
    (log,) = (project.root / "nxc-artifacts").glob("2*/events.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    told = [
        (event["type"], event.get("test") or event.get("command"), event.get("outcome"))
        for event in events
        if event["type"] in ("test-started", "test-finished", "command-started")
    ]
    assert told == [
        ("test-started", "oar/test_it.py::test_a", None),
        ("command-started", "true", None),
        ("test-finished", "oar/test_it.py::test_a", "passed"),
        ("test-started", "oar/test_it.py::test_b", None),
        ("command-started", "false", None),
        ("test-finished", "oar/test_it.py::test_b", "failed"),
    ]
