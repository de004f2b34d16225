"""Checkpoints of lab 5.2, images with rkt: each reads the store, an archive or a layout on disk."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from labkit.appc.image_manifest import ImageManifest
from labkit.appc.store import Store
from labkit.appc.types import ManifestError
from labkit.course import rkt_images
from labkit.course.checkpoints import Checkpoint, Verdict
from labkit.errors import LabError
from labkit.images import conformance, image
from labkit.images.layout import Layout
from labkit.runtimes import rkt_by_hand

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Images with rkt"
AIMS = (
    "fetch an image by URL, by name and from a docker registry, and say who was asked",
    "take an ACI apart, and compute its id",
    "trust a key for a prefix of names, and say what a signature tells that a digest does not",
    "convert images both ways, and find why an ACI is refused",
)
NEEDS = ("root", "namespaces", "cgroups", "overlay", "rkt", "registry", "podman", "runc", "skopeo")

ETCD, SHELL = "coreos.com/etcd", "quay.io/coreos/alpine-sh"
VERSION = "v3.1.7"
BROKEN, GREETING = "example.com/broken", "example.com/greeting"


def trusted(lab: Lab) -> Verdict:
    """Measure that the store has etcd, and that its signature was checked when it came."""
    return rkt_images.checked(rkt_by_hand.data(lab.directory), rkt_by_hand.local(lab.directory), f"{ETCD}:{VERSION}")


def converted(lab: Lab) -> Verdict:
    """Measure that etcd is an OCI layout that keeps to the specification, of the ACI that is called so."""
    place = lab.directory / "etcd"
    if problems := conformance.validate(place):
        first = problems[0]
        return Verdict(passed=False, measured="$LAB/etcd breaks the specification", cause=lab.short(f"{first.field}: {first.message}"))
    try:
        execution = image.in_layout(Layout(place), "latest").config.execution
    except LabError as error:
        return Verdict(passed=False, measured=lab.short(error.message), cause=error.cause and lab.short(error.cause))
    name = execution.labels.get("appc.name")
    if name != ETCD:
        return Verdict(passed=False, measured="$LAB/etcd has an image", cause=f"it was made of {name or 'no ACI'}")
    return Verdict(passed=True, measured=f"$LAB/etcd has an image made of {name} that runs {' '.join(execution.entrypoint)}")


def mended(lab: Lab) -> Verdict:
    """Measure that the store has the image that rkt would not take."""
    found = rkt_images.manifest(rkt_by_hand.data(lab.directory), f"{BROKEN}:1")
    if found is None:
        return Verdict(passed=False, measured=f"the store has no {BROKEN}:1", cause=_wrong(lab))
    if found.app is None:
        return Verdict(passed=False, measured=f"the store has {BROKEN}:1", cause="its manifest has no app: there is nothing to run")
    return Verdict(passed=True, measured=f"the store has {BROKEN}:1, which runs {found.app.exec[0]}")


def _wrong(lab: Lab) -> str | None:
    """Return what is wrong with the manifest that was given, by its field; None where nothing is."""
    try:
        ImageManifest.parse((lab.directory / "broken/manifest").read_bytes())
    except ManifestError as error:
        return f"$LAB/broken/manifest: {error.message}"
    except OSError:
        return "there is no $LAB/broken/manifest"
    return None


def alone(lab: Lab) -> Verdict:
    """Measure that the image has its own file, and stands on the shell's image for all the rest."""
    data = rkt_by_hand.data(lab.directory)
    key = rkt_images.found(data, f"{GREETING}:1")
    if key is None:
        return Verdict(passed=False, measured=f"the store has no {GREETING}:1")
    with tarfile.open(Store(data).blob(key)) as archive:
        names = {name.removeprefix("./").rstrip("/") for name in archive.getnames()}
    measured = f"the store has {GREETING}:1"
    if "rootfs/greeting" not in names:
        return Verdict(passed=False, measured=measured, cause="there is no rootfs/greeting in it")
    if "rootfs/bin/sh" in names:
        return Verdict(passed=False, measured=measured, cause="it has a shell of its own in rootfs/bin")
    below = [each.image_name for each in Store(data).manifest(key).dependencies]
    if SHELL not in below:
        return Verdict(passed=False, measured=measured, cause=f"it depends on {', '.join(below) or 'nothing'}")
    return Verdict(passed=True, measured=f"{measured}: one file of its own, on {SHELL}")


FETCH = "rkt fetch --insecure-options=image {0} > /dev/null 2>&1\n"
NAMED = f"{ETCD}:{VERSION}"
TRUST = "rkt trust --skip-fingerprint-review --prefix={0} > /dev/null 2>&1\n"
REMOVE = "rkt image rm {0} > /dev/null 2>&1\n"
VERIFIED = f"{REMOVE.format(NAMED)}{TRUST.format(ETCD)}rkt fetch {NAMED} > /dev/null 2>&1\n"
TO_OCI = "rm -rf etcd\nrkt aci2oci {0} etcd > /dev/null 2>&1\n"
NGINX = "rm -rf etcd\nskopeo copy --quiet --src-tls-verify=false docker://$REGISTRY/library/nginx:latest oci:etcd:latest\n"

MANIFEST = """{{"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "{name}",
  "labels": [{{"name": "version", "value": "{version}"}}],
  "app": {{"exec": ["/bin/sh"], "user": "0"{group}}}}}"""
FAULTS = MANIFEST.format(name="example.com/Broken", version="1", group="")
WRITE = "cat > broken/manifest << 'END'\n{0}\nEND\n"
GIVEN = f"""{FETCH.format(SHELL)}rm -rf broken broken.aci
{REMOVE.format(f"{BROKEN}:1")}rkt image extract --overwrite {SHELL} broken
{WRITE.format(FAULTS)}"""
PACK = "tar -cf broken.aci -C broken manifest rootfs\n"
TAKE = f"{PACK}rkt fetch --insecure-options=image ./broken.aci > /dev/null 2>&1\n"
GROUP = ', "group": "0"'


def _mend(name: str, version: str = "1", group: str = GROUP) -> str:
    return WRITE.format(MANIFEST.format(name=name, version=version, group=group))


DEPENDS = '"dependencies": [{{"imageName": "{0}"}}],'
GREET = """rm -rf mine
mkdir -p mine/rootfs
echo hello > mine/rootfs/greeting
cat > mine/manifest << 'END'
{{"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "{name}", {depends}
  "labels": [{{"name": "version", "value": "1"}}],
  "app": {{"exec": ["/bin/cat", "/greeting"], "user": "0", "group": "0"}}}}
END
"""
KEEP = f"tar -cf mine.aci -C mine manifest rootfs\n{FETCH.format('./mine.aci')}"
SOLVED = GREET.format(name=GREETING, depends=DEPENDS.format(SHELL))
WHOLE = f"""{FETCH.format(SHELL)}rkt image extract --overwrite --rootfs-only {SHELL} mine/shell
cp -a mine/shell/. mine/rootfs
rm -r mine/shell
"""

CHECKPOINTS = (
    Checkpoint(
        "trusted",
        task=f"the store has {NAMED}, and its signature was checked when it came",
        measure=trusted,
        hints=(
            "rkt fetch asks for the signature unless it is told not to; whose counts, rkt trust says",
            f"rkt trust --prefix={ETCD} finds the key on the page of {ETCD}",
            f"rkt image rm {NAMED}; rkt trust --prefix={ETCD}; rkt fetch {NAMED}",
        ),
        solution=VERIFIED,
        undo=REMOVE.format(NAMED),
        near_misses={
            "not checked": FETCH.format(NAMED),
            "trusted, not fetched": TRUST.format(ETCD),
            "trusted, and not checked": TRUST.format(ETCD) + FETCH.format(NAMED),
            "a key for others": f"{TRUST.format(SHELL)}rkt fetch {NAMED} > /dev/null 2>&1 || true\n",
        },
    ),
    Checkpoint(
        "converted",
        task=f"$LAB/etcd is an OCI layout with the image {ETCD}, and keeps to the specification",
        measure=converted,
        hints=("rkt aci2oci IMAGE DIRECTORY writes a layout", f"rkt aci2oci {NAMED} etcd"),
        given=FETCH.format(NAMED),
        solution=TO_OCI.format(NAMED),
        undo="rm -r etcd",
        near_misses={
            "an image of docker's": NGINX,
            "the ACI itself": f"rkt image export --overwrite {NAMED} etcd\n",
            "another ACI": FETCH.format(SHELL) + TO_OCI.format(SHELL),
            "a byte changed": f"{TO_OCI.format(NAMED)}printf . >> etcd/blobs/sha256/$(ls -S etcd/blobs/sha256 | head -n 1)\n",
        },
    ),
    Checkpoint(
        "mended",
        task=f"the store has {BROKEN}:1, made of what lies in $LAB/broken",
        measure=mended,
        hints=(
            "rkt names the field that is wrong; behind the first fault waits a second one",
            "names of images are written in small letters; who runs an app is a user and a group",
            "tar -cf broken.aci -C broken manifest rootfs; rkt fetch --insecure-options=image ./broken.aci",
        ),
        given=GIVEN,
        solution=_mend(BROKEN) + TAKE,
        undo=REMOVE.format(f"{BROKEN}:1"),
        near_misses={
            "packed as it is": f"{PACK}rkt fetch --insecure-options=image ./broken.aci > /dev/null 2>&1 || true\n",
            "one of two": f"{_mend(BROKEN, group='')}{PACK}rkt fetch --insecure-options=image ./broken.aci > /dev/null 2>&1 || true\n",
            "another name": _mend("example.com/other") + TAKE,
            "another version": _mend(BROKEN, version="2") + TAKE,
            "mended, not fetched": _mend(BROKEN) + PACK,
        },
    ),
    Checkpoint(
        "alone",
        task=f"the store has {GREETING}:1: a rootfs with the file greeting alone, and {SHELL} below it",
        measure=alone,
        hints=(
            "what an ACI stands on is named in its manifest, and rkt fetches that, too",
            'dependencies is a list: [{"imageName": "..."}]',
            "mine/manifest, mine/rootfs/greeting, tar -cf mine.aci -C mine manifest rootfs, rkt fetch",
        ),
        solution=SOLVED + KEEP,
        undo=REMOVE.format(f"{GREETING}:1"),
        near_misses={
            "on nothing": GREET.format(name=GREETING, depends="") + KEEP,
            "a shell of its own": SOLVED + WHOLE + KEEP,
            "another name": GREET.format(name="example.com/greetings", depends=DEPENDS.format(SHELL)) + KEEP,
            "the file is missing": f"{SOLVED}rm mine/rootfs/greeting\n{KEEP}",
            "packed, not fetched": f"{SOLVED}tar -cf mine.aci -C mine manifest rootfs\n",
        },
    ),
)
