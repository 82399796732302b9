"""Image recipes: what they mean, what is said of a wrong one, and what their digest is of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nxc_testing.errors import ConfigError
from nxc_testing.images.recipe import Recipe, built_in, load


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that uses everything, and what it needs."""
    write(tmp_path / "demo" / "build.sh", "#!/bin/sh\ntrue\n", 0o755)
    write(tmp_path / "demo" / "files" / "tool", "#!/bin/sh\n", 0o700)
    write(tmp_path / "demo" / "files" / "tree" / "sub" / "data", "data\n", 0o600)
    (tmp_path / "demo" / "files" / "tree" / "link").symlink_to("/target")
    return write(
        tmp_path / "demo" / "image.toml",
        """
        [image]
        extends = "base"
        packages = ["tree", "jq"]
        scripts = ["build.sh"]
        [files]
        "/etc/motd" = { content = "hello\\n" }
        "/etc/secret" = { content = "x", mode = "0600" }
        "/usr/local/bin/tool" = { source = "files/tool" }
        "/srv" = { source = "files/tree" }
        """,
    )


def other(recipe: Path, old: str, new: str) -> Recipe:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    return load(recipe)


def test_name_is_the_directorys_by_default(recipe: Path) -> None:
    assert load(recipe).name == "demo"


def test_suite_is_the_parents(recipe: Path) -> None:
    assert load(recipe).suite == load("base").suite


def test_chain_leads_to_the_recipe_that_starts_from_nothing(recipe: Path) -> None:
    assert [one.name for one in load(recipe).chain()] == ["demo", "base"]


def test_a_directory_stands_for_its_image_toml(recipe: Path) -> None:
    assert load(recipe.parent) == load(recipe)


def test_parent_is_found_relative_to_the_recipe(recipe: Path) -> None:
    child = write(recipe.parent.parent / "child" / "x.toml", '[image]\nextends = "../demo"\n')
    # A directory's name alone could be a built-in recipe: with a slash it is a path.
    assert [one.name for one in load(child).chain()] == ["child", "demo", "base"]


def test_every_built_in_recipe_can_be_read() -> None:
    assert [load(name).name for name in built_in()] == built_in()


def test_file_modes_follow_the_executable_bit_unless_given(recipe: Path) -> None:
    modes = {entry.target: entry.mode for entry in load(recipe).entries}
    assert modes == {
        "/etc/motd": 0o644,
        "/etc/secret": 0o600,
        "/srv": 0o755,
        "/srv/link": 0o777,
        "/srv/sub": 0o755,
        "/srv/sub/data": 0o644,
        "/usr/local/bin/tool": 0o755,
    }


def test_links_in_a_directory_stay_links(recipe: Path) -> None:
    [link] = [entry for entry in load(recipe).entries if entry.type == "link"]
    assert (link.target, link.content) == ("/srv/link", b"/target")


def test_digest_is_the_same_after_everything_was_touched(recipe: Path) -> None:
    before = load(recipe).digest
    for path in recipe.parent.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1, 1))
    assert load(recipe).digest == before


def test_digest_does_not_depend_on_the_order_of_packages(recipe: Path) -> None:
    before = load(recipe).digest
    assert other(recipe, '"tree", "jq"', '"jq", "tree"').digest == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"jq"', '"less"'),
        ("hello", "goodbye"),
        ("0600", "0640"),
        ("/etc/motd", "/etc/issue"),
        ('extends = "base"', 'suite = "bookworm"'),
        ('extends = "base"', 'extends = "base"\nname = "renamed"'),
    ],
)
def test_digest_changes_with_what_the_recipe_says(recipe: Path, old: str, new: str) -> None:
    before = load(recipe).digest
    assert other(recipe, old, new).digest != before


@pytest.mark.parametrize("name", ["build.sh", "files/tool", "files/tree/sub/data"])
def test_digest_changes_with_the_content_of_files(recipe: Path, name: str) -> None:
    before = load(recipe).digest
    file = recipe.parent / name
    file.write_text(file.read_text() + "# more\n")
    assert load(recipe).digest != before


def test_digest_changes_with_a_files_mode(recipe: Path) -> None:
    before = load(recipe).digest
    (recipe.parent / "files/tool").chmod(0o600)
    assert load(recipe).digest != before


def test_digest_changes_with_a_links_target(recipe: Path) -> None:
    before = load(recipe).digest
    link = recipe.parent / "files/tree/link"
    link.unlink()
    link.symlink_to("/elsewhere")
    assert load(recipe).digest != before


def test_digest_changes_with_the_parent(recipe: Path) -> None:
    child = write(recipe.parent.parent / "child" / "image.toml", '[image]\nextends = "../demo"\n')
    before = load(child).digest
    other(recipe, "hello", "goodbye")
    assert load(child).digest != before


def test_order_of_scripts_counts(recipe: Path) -> None:
    write(recipe.parent / "more.sh", "#!/bin/sh\nfalse\n", 0o755)
    before = other(recipe, '"build.sh"', '"build.sh", "more.sh"').digest
    assert other(recipe, '"build.sh", "more.sh"', '"more.sh", "build.sh"').digest != before


def test_a_recipe_that_extends_itself_is_refused_with_its_circle(tmp_path: Path) -> None:
    one = write(tmp_path / "one.toml", '[image]\nname = "one"\nextends = "./two.toml"\n')
    write(tmp_path / "two.toml", '[image]\nname = "two"\nextends = "./one.toml"\n')
    with pytest.raises(ConfigError) as caught:
        load(one)
    assert caught.value.key == "image.extends"
    assert "one.toml -> " in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("packages", "pakcages", "image.pakcages", "did you mean packages?"),
        ("[image]", "[imagee]", "imagee", "did you mean image?"),
        ('"base"', '"bse"', "image.extends", "did you mean base?"),
        ('"base"', '"base"\nsuite = "trixie"', "image.suite", "differs from the suite of base"),
        ('extends = "base"', "", "image.suite", 'extends = "base"'),
        ('extends = "base"', 'suite = "a b"', "image.suite", "not the code name"),
        ('"base"', '"base"\nname = "Upper"', "image.name", "lower-case"),
        ('"jq"', '"jq; reboot"', "image.packages[1]", "not the name of a package"),
        ('["tree", "jq"]', '"tree"', "image.packages", "an array"),
        ('"build.sh"', '"missing.sh"', "image.scripts[0]", "there is no file"),
        ('"build.sh"', '"files/tree/sub/data"', "image.scripts[0]", "chmod +x"),
        ('"/etc/motd"', '"etc/motd"', 'files."etc/motd"', "not an absolute path"),
        ('"/etc/motd"', '"/etc/../motd"', 'files."/etc/../motd"', "not an absolute path"),
        ('content = "hello\\n"', "", 'files."/etc/motd"', "either `source` or `content`"),
        ('content = "x"', 'content = "x", source = "y"', 'files."/etc/secret"', "either"),
        ('"0600"', '"rw"', 'files."/etc/secret".mode', "octal"),
        ('"0600"', "600", 'files."/etc/secret".mode', "a string"),
        ('"files/tool"', '"files/nothing"', 'files."/usr/local/bin/tool".source', "no file"),
        ('"files/tree"', '"files/tree", mode = "0755"', 'files."/srv".mode', "own modes"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(
    recipe: Path, old: str, new: str, key: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        other(recipe, old, new)
    assert (caught.value.file, caught.value.key) == (recipe, key)
    assert said in str(caught.value)


def test_a_script_without_an_interpreter_is_refused(recipe: Path) -> None:
    (recipe.parent / "build.sh").write_text("true\n")
    with pytest.raises(ConfigError, match="does not start with `#!`"):
        load(recipe)


def test_a_directory_with_a_socket_is_refused(recipe: Path) -> None:
    os.mkfifo(recipe.parent / "files/tree/pipe")
    with pytest.raises(ConfigError, match="neither a file, a directory nor a symbolic link"):
        load(recipe)


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="known: base"):
        load("nothing-like-it")


def test_virtual_machines_boot_what_a_test_needs_by_default(recipe: Path) -> None:
    assert load(recipe).units == "needed"


def test_a_recipe_can_ask_for_all_units(recipe: Path) -> None:
    before = load(recipe).digest
    after = other(recipe, "[files]", '[vm]\nunits = "all"\n[files]')
    assert after.units == "all"
    assert after.digest != before


def test_what_extends_it_has_its_units(recipe: Path, tmp_path: Path) -> None:
    other(recipe, "[files]", '[vm]\nunits = "all"\n[files]')
    child = write(tmp_path / "child" / "image.toml", '[image]\nextends = "../demo"\n')
    assert load(child).units == "all"


def test_another_choice_of_units_is_refused(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="it is one of: needed, all"):
        other(recipe, "[files]", '[vm]\nunits = "some"\n[files]')
