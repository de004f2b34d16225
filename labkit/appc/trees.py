"""The tree store: root file systems that were rendered, each once, and known again if somebody changed them.

A tree is `tree/deps-sha512-...` with `rootfs`, `image` (the keys of its images, its own last), `hash` of all that is in it, `seen` (what
the kernel noted of its files when they were last read whole) and `size`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from labkit.appc.render import Piece, digest, fingerprint, size
from labkit.appc.types import ImageID
from labkit.errors import LabError


def name_of(found: Sequence[Piece]) -> str:
    """Return the name of the tree that pieces make up."""
    text = "\n".join(str(piece.key) for piece in found)
    return f"deps-sha512-{hashlib.sha512(text.encode()).hexdigest()[:64]}"


def make(tree: Path, found: Sequence[Piece], write: Callable[[Path], None]) -> None:
    """Render a tree; it gets its name when it is whole.

    Args:
        tree: its directory, which is not there yet.
        found: what it is made up of, its own image last.
        write: writes the root file system into the directory it is given.
    """
    unfinished = tree.with_name(f"{tree.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)  # of one that was interrupted
    unfinished.mkdir(parents=True)
    try:
        rootfs = unfinished / "rootfs"
        write(rootfs)
        (unfinished / "image").write_text("".join(f"{piece.key}\n" for piece in found))
        (unfinished / "size").write_text(f"{size(rootfs)}\n")
        (unfinished / "hash").write_text(f"{digest(rootfs)}\n")
        (unfinished / "seen").write_text(f"{fingerprint(rootfs)}\n")
        unfinished.rename(tree)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def check(tree: Path, *, whole: bool = False) -> None:
    """Compare a tree with what was rendered.

    Args:
        tree: its directory.
        whole: read every file, also where the kernel noted no change.

    Raises:
        LabError: it is not the same.
    """
    try:
        seen = fingerprint(tree / "rootfs")
        if whole or (tree / "seen").read_text().strip() != seen:
            found, noted = digest(tree / "rootfs"), (tree / "hash").read_text().strip()
            if found != noted:
                os.utime(tree, (0, 0))  # nobody is about to use it: the next gc may take it
                cause = f"its digest was {noted[:16]}... and is {found[:16]}..."
                raise LabError(f"tree {tree.name} is not what was rendered", cause=cause, remedy="rkt image gc")
            (tree / "seen").write_text(f"{seen}\n")
    except OSError as error:
        raise LabError(f"tree {tree.name} is not whole", cause=str(error), remedy="rkt image gc") from error
    os.utime(tree)


def images_of(tree: Path) -> tuple[ImageID, ...]:
    """Return the images that a tree is made up of, its own last; none where the tree is gone."""
    try:
        return tuple(map(ImageID, (tree / "image").read_text().split()))
    except FileNotFoundError:
        return ()


def sizes(place: Path) -> dict[ImageID, int]:
    """Return the bytes of the trees of each image.

    Args:
        place: the directory of all trees.
    """
    found: dict[ImageID, int] = {}
    for tree in place.glob("deps-sha512-*"):
        for key in images_of(tree)[-1:]:
            found[key] = found.get(key, 0) + int((tree / "size").read_text())
    return found


def remove_unused(place: Path, used: Collection[str], *, only: ImageID | None = None) -> tuple[str, ...]:
    """Remove trees that nobody uses and return their names.

    Args:
        place: the directory of all trees.
        used: names of trees that stay.
        only: trees of this image, and no others.
    """
    removed = []
    for tree in sorted(place.glob("deps-sha512-*")):
        partial = tree.name.endswith(".partial")
        if partial or tree.name in used or (only and only not in images_of(tree)[-1:]):
            continue
        doomed = tree.with_name(f"{tree.name}.partial")
        shutil.rmtree(doomed, ignore_errors=True)
        tree.rename(doomed)  # half a tree must have no name that anybody believes
        shutil.rmtree(doomed)
        removed.append(tree.name)
    return tuple(removed)
