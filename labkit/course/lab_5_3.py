"""Checkpoints of lab 5.3, images with Podman: names, layers and blobs, read from the store and from a layout on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict
from labkit.errors import LabError
from labkit.images.layout import Layout
from labkit.images.oci import Manifest
from labkit.images.reference import with_accounts

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Images with Podman"
AIMS = (
    "say what a pull puts on the disk, file by file, and prove that it is what the registry has",
    "tell a name from an image, and an image from its layers",
    "remove images, and predict what goes and what stays",
    "push one to a registry that asks for an account",
    "find out what is wrong with an image that has come whole, and mend it",
)
NEEDS = ("root", "namespaces", "podman", "runc", "registry", "accounts")

PUSHED, TAG = "podman/busybox", "1"
CLAIMS = (("repository", PUSHED),)

PROGRAM = "bin/busybox"
"""What every program of alpine is a link to."""


def names(lab: Lab) -> Verdict:
    """Measure that busybox and localhost/mine:1 are names of one image."""
    store = lab.storage()
    found = {name: store.image(name) for name in ("busybox", "localhost/mine:1")}
    missing = [name for name, image in found.items() if image is None]
    if missing:
        return Verdict(passed=False, measured=f"no image is called {' or '.join(missing)}")
    one = len({image.id for image in found.values() if image}) == 1
    return Verdict(one, "both names are there", None if one else "they are names of two images")


def pushed(lab: Lab) -> Verdict:
    """Measure that the registry with accounts has the store's busybox under the name that was asked for."""
    image = lab.storage().image("busybox")
    if image is None:
        return Verdict(passed=False, measured="the store has no busybox to compare it with")
    registry = with_accounts()
    if registry.head(PUSHED, TAG) is None:
        return Verdict(passed=False, measured=f"the registry has no {PUSHED}:{TAG}")
    config = Manifest.parse(registry.manifest(PUSHED, TAG)[1]).config.digest
    same = config == f"sha256:{image.id}"
    return Verdict(same, f"the registry has {PUSHED}:{TAG}", None if same else "its configuration is not that of busybox")


def mended(lab: Lab) -> Verdict:
    """Measure that a layer of alpine has the program that its links lead to."""
    store = lab.storage()
    image = store.image("alpine")
    if image is None:
        return Verdict(passed=False, measured="no image is called alpine")
    there = any((store.directory(layer) / PROGRAM).is_file() for layer in store.chain(image))
    return Verdict(there, "alpine is there", None if there else f"no layer of it has {PROGRAM}")


def shelf(lab: Lab) -> Verdict:
    """Measure that $LAB/shelf is a whole OCI layout with the image that the store has as alpine."""
    image = lab.storage().image("alpine")
    if image is None:
        return Verdict(passed=False, measured="the store has no alpine to compare it with")
    layout = Layout(lab.directory / "shelf")
    if not (layout.path / "oci-layout").is_file():
        return Verdict(passed=False, measured="$LAB/shelf is no OCI layout", cause="there is no file oci-layout in it")
    try:
        blobs = len(layout.verify())
        configs = [layout.manifest(each).config.digest for each in layout.index().manifests]
    except LabError as error:
        return Verdict(passed=False, measured="$LAB/shelf is not whole", cause=lab.short(str(error)))
    same = f"sha256:{image.id}" in configs
    return Verdict(same, f"a layout of {blobs} blobs, each what its name says", None if same else "no manifest in it is that of alpine")


QUIET = " > /dev/null 2>&1\n"
PULL = "podman image pull --quiet docker.io/library/{0}" + QUIET
FORGET = "podman rmi --force {0}" + QUIET.rstrip("\n") + " || true\n"
LAYER = "$(podman image inspect --format '{{.GraphDriver.Data.UpperDir}}' alpine)"
BROKEN = FORGET.format("alpine") + PULL.format("alpine") + f"rm {LAYER}/{PROGRAM}\n"
SAVE = "rm -rf shelf\npodman save --quiet --format {1} --output shelf {0}" + QUIET
LOGIN = "podman login --username student --password-stdin $ACCOUNTS < $ACCOUNTS_PASSWORD" + QUIET
PUSH = "podman push --quiet {0} $ACCOUNTS/{1}" + QUIET.rstrip("\n") + "{2}\n"
NEAR = "podman tag {0} localhost/{1}\n"

CHECKPOINTS = (
    Checkpoint(
        "names",
        task="busybox has a second name in the store, localhost/mine:1",
        measure=names,
        hints=("a name is a line of images.json: no layer is copied", "podman tag IMAGE NAME"),
        given=PULL.format("busybox") + PULL.format("alpine"),
        solution=NEAR.format("busybox", "mine:1"),
        undo="podman untag localhost/mine:1\n",
        near_misses={
            "another image": NEAR.format("alpine", "mine:1"),
            "another tag": NEAR.format("busybox", "mine"),
            "renamed": NEAR.format("busybox", "mine:1") + "podman untag localhost/mine:1 docker.io/library/busybox:latest\n",
        },
    ),
    Checkpoint(
        "pushed",
        task=f"the registry with accounts has the image busybox as {PUSHED}:{TAG}",
        measure=pushed,
        hints=(
            "the registry's address is the beginning of the name to which an image is pushed",
            "podman login --username student --password-stdin $ACCOUNTS < $ACCOUNTS_PASSWORD",
            f"podman push busybox $ACCOUNTS/{PUSHED}:{TAG}",
        ),
        given=PULL.format("busybox") + PULL.format("alpine"),
        solution=LOGIN + PUSH.format("busybox", f"{PUSHED}:{TAG}", ""),
        undo=f"skopeo delete docker://$ACCOUNTS/{PUSHED}:{TAG}\n",
        near_misses={
            "without an account": PUSH.format("busybox", f"{PUSHED}:{TAG}", " || true"),
            "another tag": LOGIN + PUSH.format("busybox", PUSHED, ""),
            "another image": LOGIN + PUSH.format("alpine", f"{PUSHED}:{TAG}", ""),
            "logged in alone": LOGIN,
        },
    ),
    Checkpoint(
        "mended",
        task="the image alpine is whole again",
        measure=mended,
        hints=(
            "lab.stored() tells the directories of its layers: look into them",
            "a layer whose digest is in layers.json is not asked for again, whatever lies in its directory",
            "podman rmi alpine, and only then podman image pull docker.io/library/alpine",
        ),
        given=BROKEN,
        solution=FORGET.format("alpine") + PULL.format("alpine"),
        undo=BROKEN,
        near_misses={
            "pulled again": PULL.format("alpine"),
            "another name for it": NEAR.format("alpine", "whole"),
            "removed alone": FORGET.format("alpine"),
            "another image": PULL.format("busybox"),
        },
    ),
    Checkpoint(
        "shelf",
        task="$LAB/shelf is an OCI layout on disk with the image alpine",
        measure=shelf,
        hints=(
            "podman save writes images in several forms: man podman-save, --format",
            "a layout is a directory: oci-dir",
            "podman save --format oci-dir --output shelf alpine",
        ),
        given=PULL.format("alpine") + PULL.format("busybox"),
        solution=SAVE.format("alpine", "oci-dir"),
        undo="rm -r shelf\n",
        near_misses={
            "another form": SAVE.format("alpine", "docker-dir"),
            "an archive": SAVE.format("alpine", "oci-archive"),
            "another image": SAVE.format("busybox", "oci-dir"),
            "a blob has lost its end": SAVE.format("alpine", "oci-dir")
            + "truncate --size -1 shelf/blobs/sha256/$(ls -S shelf/blobs/sha256 | head -1)\n",
        },
    ),
)
