"""`nxc-test image` where nothing has to be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from nxc_testing.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("NXC_CACHE_DIR", str(path))
    return path


def test_an_empty_cache_is_listed_as_a_heading(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "list"]) == 0
    assert capsys.readouterr().out.split() == [
        *("NAME", "DIGEST", "SIZE", "PACKAGES", "BUILT", "USED", "DOCKER")
    ]


def test_a_wrong_recipe_is_a_usage_error_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "image.toml"
    recipe.write_text('[image]\nextends = "base"\nname = "x"\npackage = []\n')
    assert main(["image", "build", str(recipe)]) == 2
    assert capsys.readouterr().err == (
        f"nxc-test: {recipe}: image.package: this key means nothing here\n"
        "  did you mean packages? known: name, extends, suite, packages, scripts\n"
    )


def test_what_is_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["image", "bild"])
    assert caught.value.code == 2
    assert "bild" in capsys.readouterr().err


def test_a_dry_run_removes_nothing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leftover = cache / "images" / f".building-{'a' * 64}-dead"
    leftover.mkdir(parents=True)
    assert main(["image", "prune", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith(f"would remove {leftover}")
    assert leftover.exists()


def test_prune_removes_what_dead_builds_left(cache: Path) -> None:
    leftover = cache / "images" / f".building-{'a' * 64}-dead"
    leftover.mkdir(parents=True)
    assert main(["image", "prune"]) == 0
    assert not leftover.exists()
