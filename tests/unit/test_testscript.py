"""testScripts outside of pytest, as the command line and the REPL run them."""

import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from nxc_testing import testscript
from nxc_testing.composition import TestScript
from nxc_testing.errors import TestScriptError


@pytest.fixture
def script(tmp_path):
    """Write a script, and give what the composition says of it."""

    def write(text: str, **settings: bool) -> TestScript:
        file = tmp_path / "test_script.py"
        file.write_text(text)
        return TestScript(file, **settings)

    return write


def frames(error: BaseException) -> list[tuple[str, int]]:
    return [
        (Path(frame.filename).name, frame.lineno or 0)
        for frame in traceback.extract_tb(error.__traceback__)
    ]


def failure(script: TestScript) -> BaseException:
    """What a script raises."""
    with pytest.raises(Exception) as caught:
        testscript.execute(script.file, {})
    return caught.value


def test_a_script_finds_its_globals_and_knows_its_file(script):
    seen: list[object] = []
    testscript.execute(script("out += [given, __file__]").file, {"out": seen, "given": 1})
    assert seen == [1, str(script("").file)]


def test_each_run_reads_the_file_anew(script):
    seen: list[int] = []
    # As fast as this, and as long: times and sizes do not tell the two apart.
    testscript.execute(script("out.append(1)").file, {"out": seen})
    testscript.execute(script("out.append(2)").file, {"out": seen})
    assert seen == [1, 2]


def test_a_run_knows_nothing_of_the_run_before(script):
    file = script("out.append('left' in globals()); left = 1").file
    seen: list[bool] = []
    for _ in range(2):
        testscript.execute(file, {"out": seen})
    assert seen == [False, False]


def test_a_run_is_not_among_the_modules_afterwards(script):
    file = script("x = 1").file
    testscript.execute(file, {})
    assert testscript.module_name(file) not in sys.modules


def test_a_run_outside_of_pytest_leaves_nothing_beside_the_script(script):
    file = script("x = 1").file
    code = f"""
import pathlib, sys
from nxc_testing import testscript
sys.dont_write_bytecode = False
testscript.execute(pathlib.Path({str(file)!r}), {{}})
"""
    subprocess.run([sys.executable, "-B", "-c", code], check=True)
    assert list(file.parent.iterdir()) == [file]


def test_a_script_may_have_any_file_name(tmp_path):
    seen: list[int] = []
    for name in ("a b.txt", "class.py", "noending"):
        (tmp_path / name).write_text("out.append(1)")
        testscript.execute(tmp_path / name, {"out": seen})
    assert seen == [1, 1, 1]


def test_the_traceback_begins_in_the_script_and_goes_on_below_it(script):
    error = failure(script("def f():\n    import json\n    json.loads('{')\n\nf()\n"))
    names = frames(error)
    start = names.index(("test_script.py", 5))
    assert names[start + 1] == ("test_script.py", 3)
    assert names[-1][0] == "decoder.py"
    callers = {name for name, _ in names[:start]}
    assert callers <= {"test_testscript.py", "testscript.py"}


def test_the_cause_of_an_error_is_kept(script):
    error = failure(
        script("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise OSError from e\n")
    )
    assert isinstance(error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("text", ["", "# comment\n", '"""docstring"""\n', "pass\n", "...\n"])
def test_a_script_without_a_statement_is_refused(script, text):
    with pytest.raises(TestScriptError, match="is empty"):
        testscript.check(script(text))


def test_an_empty_script_is_accepted_where_it_is_meant(script):
    assert testscript.is_empty(testscript.check(script("", allow_empty=True)))


def test_a_syntax_error_names_file_line_and_text(script):
    with pytest.raises(TestScriptError) as caught:
        testscript.check(script("x = 1\nserver.succeed('a' 'b\n"))
    assert "test_script.py: line 2: this is not Python: unterminated string" in str(caught.value)
    assert "server.succeed('a' 'b" in str(caught.value)


def test_a_missing_script_is_refused(tmp_path):
    with pytest.raises(TestScriptError, match=r"gone\.py: cannot be read: No such file"):
        testscript.check(TestScript(tmp_path / "gone.py"))


def test_a_null_byte_is_refused(script):
    with pytest.raises(TestScriptError, match="this is not Python"):
        testscript.check(script("x = 1\0\n"))


def test_invalid_escapes_of_shell_are_accepted(script):
    testscript.check(script(r"server.succeed('echo \$X')"))


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("1 / 0\n", ""),
        ("1 / 0\nx = 1\n", "line 2"),
        ("x = 1\n1 / 0\n# comment\nx = 1\nx = 2\n", "lines 4 to 5"),
        ("print(\n    1 / 0,\n    3,\n)\nx = 1\n", "line 5"),
        ("if True:\n    1 / 0\n    x = 1\nx = 2\n", "lines 3 to 4"),
        ("def f():\n    1 / 0\n    x = 1\nf()\nx = 2\n", "line 5"),
        ("1 / 0\nwith subtest('a'):\n    x = 1\n", "lines 2 to 3, with the subtest 'a'"),
        (
            "1 / 0\nwith subtest('a'): x = 1\nfor i in []:\n    with d.subtest('b'): x = 1\n",
            "lines 2 to 4, with the subtests 'a', 'b'",
        ),
    ],
)
def test_what_an_error_left_unreached_is_told(script, text, rest):
    written = script(text)
    assert testscript.unreached(written, failure(written)) == rest
