"""systemd's words, and ours to it."""

from __future__ import annotations

import shlex

import pytest

from nxc_testing.units import parse_properties, systemctl


class TestProperties:
    def test_each_line_is_one(self) -> None:
        assert parse_properties("Id=a.service\nActiveState=active\n") == {
            "Id": "a.service",
            "ActiveState": "active",
        }

    def test_a_value_may_be_empty_or_hold_an_equals_sign(self) -> None:
        assert parse_properties("Empty=\nEnvironment=A=1 B=2\n") == {
            "Empty": "",
            "Environment": "A=1 B=2",
        }

    def test_of_a_value_of_several_lines_the_first_counts(self) -> None:
        assert parse_properties("Description=one\n  two\nId=x\n") == {
            "Description": "one",
            "Id": "x",
        }

    @pytest.mark.parametrize("text", ["", "\n", "no property\n", "=nothing\n", "a b=c\n"])
    def test_what_is_none_is_left_out(self, text: str) -> None:
        assert parse_properties(text) == {}


class TestCommandLine:
    def test_the_machines_own_systemd_is_asked_plainly(self) -> None:
        assert systemctl("start a.service", None) == "systemctl start a.service"

    def test_a_users_systemd_is_asked_as_that_user(self) -> None:
        words = shlex.split(systemctl("start a.service", "user1"))
        assert words[:-1] == ["su", "-l", "user1", "--shell", "/bin/sh", "-c"]
        assert words[-1].endswith(" systemctl --user start a.service")
        assert "XDG_RUNTIME_DIR=/run/user/`id -u`" in words[-1]

    def test_quotes_in_a_query_come_through(self) -> None:
        words = shlex.split(systemctl("show 'a b'", "user1"))
        assert words[-1].endswith("show 'a b'")
