"""Checkpoints of lab 5.1, images with Docker: each asks the registry, reads a layout on disk, or compares two root directories."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict
from labkit.errors import LabError
from labkit.host.services.places import places
from labkit.images import conformance, image
from labkit.images.image import ImageParts
from labkit.images.layout import Layout
from labkit.images.reference import Reference
from labkit.images.registry import RegistryError
from labkit.kernel.overlay import Overlay
from labkit.runtimes import docker_daemon
from labkit.runtimes.docker import Docker

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Images with Docker"
AIMS = (
    "pull an image, and say what came: index, manifest, configuration, layers",
    "tell by its digest that nothing else came",
    "stack the layers by hand into the root directory that docker runs",
    "push to a registry with accounts, and find why a push is refused",
)
NEEDS = ("root", "namespaces", "overlay", "dockerd", "podman", "skopeo", "registry", "accounts")
PUSHED, MENDED = "lfstudent/alpine", "lfstudent/mended"
CLAIMS = (("repository", PUSHED), ("repository", MENDED))
TAG = "training"
ALPINE, OTHER = f"{PUSHED}:{TAG}", f"{MENDED}:{TAG}"
MINE = ("alpine", "busybox")


def pushed(lab: Lab) -> Verdict:
    """Measure that the registry with accounts has alpine under the name that was asked for."""
    return _pushed(lab, PUSHED)


def mended(lab: Lab) -> Verdict:
    """Measure the same of the image that would not be pushed."""
    return _pushed(lab, MENDED)


def _pushed(lab: Lab, repository: str) -> Verdict:
    try:
        found = _asked(f"{places().accounts_address}/{repository}:{TAG}")
    except RegistryError as error:
        if error.status != 404:
            raise
        return Verdict(passed=False, measured=f"the registry has no {repository}:{TAG}", cause=_why(lab, repository))
    if found.config.diff_ids != _asked("alpine").config.diff_ids:
        return Verdict(passed=False, measured=f"the registry has {repository}:{TAG}", cause="its layers are not those of alpine")
    return Verdict(passed=True, measured=f"the registry has {repository}:{TAG}, with the layers of alpine")


def _asked(name: str) -> ImageParts:
    reference = Reference.parse(name)
    return image.in_registry(reference.registry(), reference.repository, reference.tag)


def _why(lab: Lab, repository: str) -> str | None:
    """Measure why a push did not come so far: another tag, a client that cannot keep an account, one that has none."""
    try:
        tags = Reference.parse(f"{places().accounts_address}/{repository}").registry().tags(repository)
    except RegistryError:
        tags = []
    if tags:
        return f"it has the tag {tags[0]}"
    try:
        known = json.loads((lab.directory / docker_daemon.NAME / "client/config.json").read_text())
    except (OSError, ValueError):
        known = {}
    keeper = known.get("credHelpers", {}).get(places().accounts_address) or known.get("credsStore")
    program = f"docker-credential-{keeper}"
    if keeper and shutil.which(program) is None:
        return f"docker's client is told to keep accounts with {program}, and there is no such program"
    if places().accounts_address not in known.get("auths", {}):
        return f"docker's client has no account for {places().accounts_address}"
    return None


def stacked(lab: Lab) -> Verdict:
    """Measure that an overlay on merged, of layers that the lab unpacked, has all that docker mounted as the root of web."""
    merged = lab.directory / "merged"
    try:
        lower = Overlay.find(merged).lowerdir
    except LabError:
        return Verdict(passed=False, measured="no overlay is mounted on $LAB/merged")
    dockers = sum(each.resolve().is_relative_to(lab.directory / docker_daemon.NAME) for each in lower)
    if dockers > 1:
        return Verdict(passed=False, measured="an overlay is mounted on $LAB/merged", cause=f"{dockers} of its layers are docker's own")
    pid = next((each.pid for each in Docker().list() if each.name == "web" and each.pid), None)
    if pid is None:
        return Verdict(passed=False, measured="an overlay is mounted on $LAB/merged, and docker runs no container web")
    unequal = lab.compare_roots("merged", pid).unequal
    cause = f"{unequal[0].path}: {unequal[0].what}" if unequal else None
    return Verdict(not unequal, "merged and the root of web are equal" if not unequal else "merged and the root of web differ", cause)


def alone(lab: Lab) -> Verdict:
    """Measure that mine is an OCI layout with both images under their names, and keeps to the specification."""
    place = lab.directory / "mine"
    if problems := conformance.validate(place):
        first = problems[0]
        return Verdict(passed=False, measured="$LAB/mine breaks the specification", cause=lab.short(f"{first.field}: {first.message}"))
    for name in MINE:
        try:
            found = image.in_layout(Layout(place), name)
        except LabError as error:
            return Verdict(passed=False, measured=lab.short(error.message), cause=error.cause and lab.short(error.cause))
        if found.config.diff_ids != _asked(name).config.diff_ids:
            return Verdict(passed=False, measured=f"$LAB/mine has an image called {name}", cause=f"its layers are not those of {name}")
    return Verdict(passed=True, measured=f"$LAB/mine has {' and '.join(MINE)}, and keeps to the specification")


LOGIN = "docker login --username student --password-stdin $ACCOUNTS < $ACCOUNTS_PASSWORD > /dev/null 2>&1"
CLIENT = "$DOCKER_CONFIG/config.json"
PULL = "docker image pull --quiet {0} > /dev/null\n"
NAMED = PULL.format("alpine") + "docker image tag alpine $ACCOUNTS/{0}\n"
PUSH = "docker image push $ACCOUNTS/{0} > /dev/null 2>&1"
DELETE = f"skopeo delete --authfile {CLIENT} docker://$ACCOUNTS/{{0}}:{TAG}\n"
BROKEN = f"""mkdir -p $DOCKER_CONFIG
echo '{{"credHelpers": {{"'$ACCOUNTS'": "desktop"}}}}' > {CLIENT}
{NAMED.format(OTHER)}"""
WHOLE = f"echo '{{}}' > {CLIENT}\n{LOGIN}\n"

CHANGED = f"""docker container rm --force changed web > /dev/null 2>&1
{PULL.format("alpine")}docker container run --name changed alpine rm /etc/profile
docker container commit changed changed > /dev/null
docker image save --output changed.tar changed
rm -rf changed layers upper work merged
mkdir upper work merged
skopeo copy --quiet docker-archive:changed.tar oci:changed:latest
"""
UNPACKED = """manifest=$(grep -o 'sha256:[0-9a-f]*' changed/index.json)
number=0
for digest in $(grep -o 'sha256:[0-9a-f]*' changed/blobs/sha256/${manifest#sha256:} | tail -n +2); do
  number=$((number + 1))
  mkdir -p layers/$number
  tar --xattrs --xattrs-include='*' --numeric-owner -xf changed/blobs/sha256/${digest#sha256:} -C layers/$number
done
"""
WHITEOUT = "rm layers/2/etc/.wh.profile\nmknod layers/2/etc/profile c 0 0\n"
WEB = "docker container run --detach --name web changed sleep 600 > /dev/null\n"
DOCKERS = r"""pid=$(docker container inspect --format '{{.State.Pid}}' web)
lower=$(sed -n '1s/.* - overlay .*lowerdir=\([^,]*\).*/\1/p' /proc/$pid/mountinfo)
"""
OVERLAY = "mount -t overlay overlay -o lowerdir={0},upperdir=upper,workdir=work merged\n"
STACK = f"{WEB}{DOCKERS}{OVERLAY.format('${lower%%:*}:layers/2:layers/1')}"
SKOPEO = "skopeo copy --quiet --src-tls-verify=false docker://$REGISTRY/library/{0}:latest {2}:mine{1}\n"
BOTH = SKOPEO.format("alpine", ":alpine", "oci") + SKOPEO.format("busybox", ":busybox", "oci")

CHECKPOINTS = (
    Checkpoint(
        "pushed",
        task=f"the registry with accounts has alpine as {ALPINE}",
        measure=pushed,
        hints=(
            "docker pushes to the registry that an image's name begins with, and it asks for an account",
            "docker image tag gives one image another name; docker login gives the client an account",
            f"docker login $ACCOUNTS; docker image tag alpine $ACCOUNTS/{ALPINE}; docker image push $ACCOUNTS/{ALPINE}",
        ),
        solution=f"{NAMED.format(ALPINE)}{LOGIN}\n{PUSH.format(ALPINE)}\n",
        undo=DELETE.format(PUSHED),
        near_misses={
            "not logged in": f"{NAMED.format(ALPINE)}docker logout $ACCOUNTS > /dev/null\n{PUSH.format(ALPINE)} || true\n",
            "another tag": f"{NAMED.format(f'{PUSHED}:latest')}{LOGIN}\n{PUSH.format(f'{PUSHED}:latest')}\n",
            "another image": f"{NAMED.replace('alpine', 'busybox').format(ALPINE)}{LOGIN}\n{PUSH.format(ALPINE)}\n",
        },
    ),
    Checkpoint(
        "stacked",
        task="an overlay on $LAB/merged has all that docker mounted as the root of web, and its layers were unpacked by you",
        measure=stacked,
        hints=(
            'lab.compare_roots("merged", "web") names what differs',
            "the topmost layer comes first, and over the image's lies one of docker's own: in /proc/PID/mountinfo, after lowerdir=",
            "what .wh.NAME takes away in a tar, a character device NAME with the numbers 0 and 0 takes away in an overlay",
        ),
        given=CHANGED + UNPACKED,
        solution=WHITEOUT + STACK,
        undo="umount merged",
        near_misses={
            "the whiteout left as in the tar": STACK,
            "without docker's own layer": WHITEOUT + WEB + OVERLAY.format("layers/2:layers/1"),
            "upside down": WHITEOUT + WEB + DOCKERS + OVERLAY.format("layers/1:layers/2:${lower%%:*}"),
            "docker's layers": WEB + DOCKERS + OVERLAY.format("$lower"),
            "a mode changed in it": f"{WHITEOUT}{STACK}chmod 600 merged/etc/passwd\n",
            "no container": WHITEOUT + OVERLAY.format("layers/2:layers/1"),
        },
    ),
    Checkpoint(
        "mended",
        task=f"the registry with accounts has alpine as {OTHER}",
        measure=mended,
        hints=(
            "docker login says more than docker image push does: try it",
            "what docker's client was told about accounts stands in $DOCKER_CONFIG/config.json",
            f"credHelpers names a program that is not here: take it out, log in, push $ACCOUNTS/{OTHER}",
        ),
        given=BROKEN,
        solution=f"{WHOLE}{PUSH.format(OTHER)}\n",
        undo=DELETE.format(MENDED),
        near_misses={
            "pushed as it is": f"{PUSH.format(OTHER)} || true\n",
            "mended, not logged in": f"echo '{{}}' > {CLIENT}\n{PUSH.format(OTHER)} || true\n",
            "the other name": f"{WHOLE}{NAMED.format(ALPINE)}{PUSH.format(ALPINE)}\n",
        },
    ),
    Checkpoint(
        "alone",
        task="$LAB/mine is one OCI layout with the images alpine and busybox, called so, and keeps to the specification",
        measure=alone,
        hints=(
            'lab.problems("mine") and lab.image("oci:mine:alpine") say what is there',
            "skopeo copies from docker://REGISTRY/REPOSITORY:TAG to oci:DIRECTORY:NAME; a second image goes beside the first",
            "skopeo copy --src-tls-verify=false docker://$REGISTRY/library/alpine:latest oci:mine:alpine",
        ),
        solution=BOTH,
        undo="rm -r mine",
        near_misses={
            "one of them": SKOPEO.format("alpine", ":alpine", "oci"),
            "another form": SKOPEO.format("alpine", "", "dir"),
            "one image twice": BOTH.replace("library/busybox", "library/alpine"),
            "a byte changed": f"{BOTH}printf . >> mine/blobs/sha256/$(ls -S mine/blobs/sha256 | head -n 1)\n",
        },
    ),
)
