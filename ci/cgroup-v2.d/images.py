"""images.py [RECIPE|COMPOSITION]...: build images; print each one's directory in the cache.

What an image extends comes after it. A composition, a directory with a composition.toml, stands
for the images of its roles.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from nxc_testing import composition
from nxc_testing.errors import NxcError
from nxc_testing.images import builder, recipe


def recipes(names: list[str]) -> Iterator[Path | str]:
    """The recipes of what was named."""
    for name in names:
        if (Path(name) / "composition.toml").is_file():
            roles = composition.load(Path(name)).roles
            yield from dict.fromkeys(r.image for r in roles if isinstance(r.image, Path))
        else:
            yield name


def say(topic: str, message: str) -> None:
    """Tell of a build's progress."""
    sys.stderr.write(f"{topic}: {message}\n")


def main() -> None:
    """Build, and print."""
    directories: dict[Path, None] = {}
    for name in recipes(sys.argv[1:]):
        for one in recipe.load(name).chain():
            image = builder.ensure(one.path, mirror=os.environ.get("NXC_MIRROR"), progress=say)
            directories[image.rootfs.parent] = None
    sys.stdout.writelines(f"{directory}\n" for directory in directories)


if __name__ == "__main__":
    try:
        main()
    except NxcError as error:
        sys.exit(str(error))
