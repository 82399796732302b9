"""Where packages come from, as the real apt of this host reads a configuration made here."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nxc_testing.errors import ConfigError, ImageError
from nxc_testing.images.mirror import KEYRING, Source, download_settings, sources, sources_list

MAIN = "http://mirror.example/debian/"
SECURITY = "http://mirror.example/debian-security/"

Apt = Callable[..., None]


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    """Gives apt sources and indexes as they are after `apt-get update`, and settings."""
    etc, lists = tmp_path / "etc", tmp_path / "lists"
    (etc / "sources.list.d").mkdir(parents=True)
    (lists / "partial").mkdir(parents=True)
    config = tmp_path / "apt.conf"
    empty = tmp_path / "empty"
    empty.mkdir()
    fixed = (
        f'Dir::Etc::sourcelist "{etc}/sources.list";\n'
        f'Dir::Etc::sourceparts "{etc}/sources.list.d";\n'
        f'Dir::Etc::parts "{empty}";\nDir::Etc::main "{empty}/none";\n'
        f'Dir::State::lists "{lists}";\n'
    )
    config.write_text(fixed)
    monkeypatch.setenv("APT_CONFIG", str(config))

    def configure(*, one_line: str = "", deb822: str = "", settings: str = "") -> None:
        (etc / "sources.list").write_text(one_line)
        (etc / "sources.list.d" / "more.sources").write_text(deb822)
        config.write_text(fixed + settings)

    return configure


@pytest.fixture
def index(tmp_path: Path) -> Callable[..., None]:
    """Leaves an index where apt keeps it."""

    def add(uri: str, release: str, *components: str, origin: str = "Debian") -> None:
        scheme_less = uri.partition("://")[2] if "://" in uri else uri.partition(":")[2]
        name = scheme_less.rstrip("/").replace("_", "%5f").replace("/", "_")
        stem = tmp_path / "lists" / f"{name}_dists_{release}"
        Path(f"{stem}_Release").write_text(f"Origin: {origin}\nCodename: {release}\n")
        for component in components or ("main",):
            Path(f"{stem}_{component}_binary-amd64_Packages").touch()

    return add


def lines(suite: str = "bookworm") -> list[str]:
    return [f"{one.uri} {one.suite} {' '.join(one.components)}" for one in sources(suite)]


def test_one_line_sources_are_taken_with_updates_and_security(
    apt: Apt, index: Callable[..., None]
) -> None:
    apt(
        one_line=f"deb {MAIN} bookworm main contrib\ndeb {MAIN} bookworm-updates main\n"
        f"deb {SECURITY} bookworm-security main\n"
    )
    index(MAIN, "bookworm", "main", "contrib")
    index(MAIN, "bookworm-updates")
    index(SECURITY, "bookworm-security")
    assert lines() == [
        f"{MAIN} bookworm main contrib",
        f"{MAIN} bookworm-updates main",
        f"{SECURITY} bookworm-security main",
    ]


def test_deb822_sources_are_taken(apt: Apt, index: Callable[..., None]) -> None:
    apt(deb822=f"Types: deb\nURIs: {MAIN}\nSuites: bookworm\nComponents: main\n")
    index(MAIN, "bookworm")
    assert lines() == [f"{MAIN} bookworm main"]


def test_other_suites_backports_and_third_parties_are_left_out(
    apt: Apt, index: Callable[..., None]
) -> None:
    third = "http://third.example/apt/"
    apt(
        one_line=f"deb {MAIN} bookworm main\ndeb {MAIN} trixie main\n"
        f"deb {MAIN} bookworm-backports main\ndeb {third} bookworm main\n"
    )
    index(MAIN, "bookworm")
    index(MAIN, "trixie")
    index(MAIN, "bookworm-backports")
    index(third, "bookworm", origin="Third")
    assert lines() == [f"{MAIN} bookworm main"]


def test_a_host_of_another_release_is_told_to_name_a_mirror(
    apt: Apt, index: Callable[..., None]
) -> None:
    apt(one_line=f"deb {MAIN} trixie main\n")
    index(MAIN, "trixie")
    with pytest.raises(ImageError, match=r"no index of Debian bookworm.*--nxc-mirror URL"):
        sources("bookworm")


def test_a_host_without_indexes_is_told_to_update(apt: Apt) -> None:
    apt(one_line=f"deb {MAIN} bookworm main\n")
    with pytest.raises(ImageError, match="run `apt-get update`"):
        sources("bookworm")


def test_a_directory_of_the_host_is_no_source_for_an_image(
    apt: Apt, index: Callable[..., None], tmp_path: Path
) -> None:
    uri = f"file:{tmp_path}/repository/"
    apt(one_line=f"deb {uri} bookworm main\n")
    index(uri, "bookworm")
    with pytest.raises(ImageError, match="no index of Debian bookworm"):
        sources("bookworm")


def test_the_first_of_a_list_of_mirrors_is_taken(
    apt: Apt, index: Callable[..., None], tmp_path: Path
) -> None:
    mirrors = tmp_path / "mirrors.list"
    mirrors.write_text(f"# nearest first\n{MAIN}\tpriority:1\nhttp://far.example/debian/\n")
    uri = f"mirror+file:{mirrors}"
    apt(one_line=f"deb {uri} bookworm main\n")
    index(uri, "bookworm")
    assert lines() == [f"{MAIN} bookworm main"]


def test_what_the_host_allows_of_frozen_archives_stays_with_the_image(
    apt: Apt, index: Callable[..., None]
) -> None:
    apt(
        one_line=f"deb {MAIN} bookworm main\n",
        settings='Acquire::Check-Valid-Until "false";\n',
    )
    index(MAIN, "bookworm")
    assert sources_list(sources("bookworm")) == (
        f"deb [signed-by={KEYRING} check-valid-until=no] {MAIN} bookworm main\n"
    )


def test_proxies_of_the_host_are_used_for_the_build(apt: Apt) -> None:
    apt(settings='Acquire::http::Proxy "http://proxy.example:3128";\nAPT::Other "x";\n')
    assert download_settings() == 'Acquire::http::Proxy "http://proxy.example:3128";\n'


def test_a_password_in_an_address_does_not_reach_the_image() -> None:
    source = Source("https://user:word@mirror.example:8443/debian/", "bookworm", ("main",))
    assert source.public().uri == "https://mirror.example:8443/debian/"


@pytest.mark.parametrize("address", ["mirror.example", "ftp://mirror.example", "file:///srv"])
def test_a_mirror_must_have_an_http_address(address: str) -> None:
    with pytest.raises(ConfigError, match="not a mirror's address"):
        sources("bookworm", address)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server, and the directory that it serves."""
    root = tmp_path / "www"
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object):
            super().__init__(*args, directory=str(root), **kwargs)  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/debian", root / "debian"
        server.shutdown()
        thread.join()


def has(directory: Path, *suites: str) -> None:
    for suite in suites:
        (directory / "dists" / suite).mkdir(parents=True)
        (directory / "dists" / suite / "InRelease").write_text("Origin: Debian\n")


@pytest.mark.parametrize(
    "suites", [("bookworm",), ("bookworm", "bookworm-updates")], ids=["alone", "with updates"]
)
def test_a_mirror_gives_the_suite_and_its_updates_if_it_has_them(
    mirror: tuple[str, Path], suites: tuple[str, ...]
) -> None:
    address, directory = mirror
    has(directory, *suites)
    assert [(one.uri, one.suite) for one in sources("bookworm", address)] == [
        (f"{address}/", suite) for suite in suites
    ]


def test_a_mirror_without_the_suite_is_refused(mirror: tuple[str, Path]) -> None:
    address, directory = mirror
    has(directory, "trixie")
    with pytest.raises(ImageError, match="does not have bookworm"):
        sources("bookworm", address)
