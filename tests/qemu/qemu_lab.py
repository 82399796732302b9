"""Deployments of virtual machines, for tests of what only they have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nxc_testing.backends.qemu import QemuBackend
from nxc_testing.composition import Composition, Network, Role, make_plan
from nxc_testing.driver import Driver
from nxc_testing.images import Image
from nxc_testing.session import Session


@contextmanager
def deployed(image: Image, root: Path, *roles: Role) -> Iterator[Driver]:
    """Machines of some roles, on one network."""
    composition = Composition("lab", root, root / "composition.toml", roles, (Network("lan"),))
    plan = make_plan(composition, {role.name: image for role in roles})
    with ExitStack() as stack:
        session = Session(root)
        stack.callback(session.close)
        deployment = QemuBackend().deploy(plan, session)
        stack.callback(deployment.close)
        driver = Driver(composition, deployment, session, "qemu", out_dir=root / "out")
        stack.callback(driver.close)
        yield driver
