"""From a composition to a driver: the one way that pytest, the command line and the REPL share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nxc_testing import backends
from nxc_testing.backends import mixed
from nxc_testing.composition import Composition, ShellMode, make_plan
from nxc_testing.driver import Driver
from nxc_testing.images import Image
from nxc_testing.session import Session


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user chose beside the composition.

    :ivar backend: its name, or `auto`.
    :ivar mirror: where packages come from; None for the host's own apt configuration.
    :ivar keep: leave the machines at the end.
    :ivar mode: another shell mode than the composition's.
    :ivar out_dir: where `copy_from_machine` puts things; the working directory by default.
    """

    backend: str = backends.AUTO
    mirror: str | None = None
    keep: bool = False
    mode: ShellMode | None = None
    out_dir: Path | None = None


def open_driver(composition: Composition, settings: Settings, session: Session) -> Driver:
    """Build the images, make the machines, and give them to a driver; nothing is started yet.

    :param composition: with its final counts.
    :raise ConfigError: if something the user wrote cannot be used.
    :raise InfraError: if the backend, an image or the machines cannot be had.
    """
    session.look_for_dead_runs()
    backend = backends.load(backends.choose(settings.backend).name)
    if settings.keep:
        session.keep()
    plan = make_plan(composition, build_images(composition, settings, session))
    deployment = mixed.deploy(plan, session, backend)
    try:
        return Driver(
            composition,
            deployment,
            session,
            backend.name,
            mode=settings.mode,
            keep=settings.keep,
            out_dir=settings.out_dir,
        )
    except BaseException:
        deployment.close()
        raise


def build_images(
    composition: Composition, settings: Settings, session: Session
) -> dict[str, Image | str]:
    """What each role runs, built where it is a recipe; each recipe once.

    :return: by the role's name.
    """
    from nxc_testing.images.builder import ensure  # noqa: PLC0415 - only where recipes are

    built: dict[Path, Image] = {}
    images: dict[str, Image | str] = {}
    for role in {
        instance.role.name: instance.role for instance in composition.instances()
    }.values():
        if isinstance(role.image, Path) and role.image not in built:
            built[role.image] = ensure(
                role.image, mirror=settings.mirror, progress=session.progress
            )
        images[role.name] = built[role.image] if isinstance(role.image, Path) else role.image
    return images
