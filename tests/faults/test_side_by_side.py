"""Many runs on one host do not get into each other's way."""

from __future__ import annotations

from run_lab import RunLab

RUNS = 20


def test_twenty_runs_are_green_and_leave_nothing(lab: RunLab) -> None:
    lab.composition("def test_it(one):\n    assert one.succeed('echo hi') == 'hi\\n'\n")
    runs = [lab.start() for _ in range(RUNS)]
    assert [run.ends(300) for run in runs] == [0] * RUNS
    assert len({one for run in runs for one in run.ids}) == RUNS
    lab.all_is_gone()


def test_of_twenty_runs_the_killed_ones_go_and_the_others_stay_green(lab: RunLab) -> None:
    lab.composition(
        "def test_it(one):\n    one.succeed('setsid sleep 1000 >&- 2>&- &')\n"
        "    reached(str(os.getpid()))\n"
        f"    while not pathlib.Path({str(lab.root)!r}, 'go').exists(): time.sleep(0.1)\n"
        "    assert one.succeed('pgrep -c sleep > /dev/null; echo hi') == 'hi\\n'\n"
    )
    runs = [lab.start() for _ in range(RUNS)]
    for run in runs:
        run.reaches(str(run.process.pid), 300)
    for run in runs[::2]:
        run.kill()
    (lab.root / "go").touch()
    assert [run.ends(300) for run in runs[1::2]] == [0] * (RUNS // 2)
    lab.all_is_gone()
