"""What an image asks for at boot is there, although machines boot without what nobody asks for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from qemu_lab import deployed

from nxc_testing.composition import Role
from nxc_testing.images import Image
from nxc_testing.images.builder import ensure
from nxc_testing.machine import Machine

RECIPE = """
[image]
name = "asks"
extends = "base"
scripts = ["asks.sh"]

[files]
"/etc/fstab" = { content = '''
# What a base system has is a comment.
scratch /srv tmpfs size=1M 0 0
''' }
"/etc/modules-load.d/dummy.conf" = { content = "dummy\\n" }
"/etc/init.d/old" = { mode = "0755", content = '''
#!/bin/sh
### BEGIN INIT INFO
# Provides: old
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
echo "$1" >/run/old
''' }
"""


@pytest.fixture(scope="module")
def asking(base: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine of an image that asks for all of it."""
    root = tmp_path_factory.mktemp("asks")
    recipe = root / "image.toml"
    recipe.write_text(RECIPE)
    script = root / "asks.sh"
    script.write_text("#!/bin/sh\nln -s ../init.d/old /etc/rc3.d/S01old\n")
    script.chmod(0o755)
    role = Role("box", recipe, networks=("lan",), kernel_parameters=("systemd.mask=dbus.socket",))
    with deployed(ensure(recipe), root, role) as driver:
        yield driver.machine("box")


def test_what_fstab_names_is_mounted(asking: Machine) -> None:
    assert asking.succeed("findmnt -no FSTYPE /srv").strip() == "tmpfs"


def test_modules_that_a_file_names_are_loaded(asking: Machine) -> None:
    asking.succeed("test -d /sys/module/dummy")


def test_a_script_without_a_unit_is_started(asking: Machine) -> None:
    asking.wait_for_unit("old.service")
    assert asking.succeed("cat /run/old").strip() == "start"


def test_parameters_for_systemd_hold(asking: Machine) -> None:
    asking.succeed("systemctl show -P LoadState dbus.socket | grep -x masked")


def test_a_machine_that_nothing_is_asked_of_boots_without_it(box: Machine) -> None:
    started = box.succeed("systemctl list-units --type=service --state=active")
    assert "systemd-modules-load" not in started
    assert "systemd-logind" not in started


def test_a_login_manager_starts_when_it_is_asked_for(box: Machine) -> None:
    box.succeed("loginctl list-sessions")
    box.succeed("systemctl is-active dbus.service systemd-logind.service")
