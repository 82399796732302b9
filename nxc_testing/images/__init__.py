"""Images: root file systems built from recipes, kept in a content-addressed cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Image:
    """A built root file system.

    :ivar name: the recipe's name.
    :ivar digest: of everything it was made from, in hex; equal digests mean equal recipes.
    :ivar rootfs: an uncompressed tar archive.
    """

    name: str
    digest: str
    rootfs: Path
