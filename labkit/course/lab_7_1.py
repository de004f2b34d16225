"""Checkpoints of lab 7.1, an image from a running container: each reads the image as it lies on disk, or asks the registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from labkit.course import examples
from labkit.course.checkpoints import Checkpoint, Verdict
from labkit.images.oci import Manifest
from labkit.images.reference import with_accounts
from labkit.images.saved import Saved, Step

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "An image from a running container"
AIMS = (
    "find what a container has changed, by docker's word and by the kernel's",
    "make an image of it by commit, and by export and import, and say what each keeps",
    "push it to a registry that wants an account",
    "build without a daemon, with Buildah",
)
NEEDS = ("root", "namespaces", "dockerd", "podman", "buildah", "registry", "accounts")
REPOSITORY = "guillermotti/lfstudent"
CLAIMS = (("repository", REPOSITORY),)

FLATTEN = """\
#!/bin/sh -e
cd "$(dirname "$0")"
docker image build -t greeter . > ../build.log 2>&1
id=$(docker container create greeter)
docker container export $id | docker image import {}- greeter:flat > ../build.log
docker container rm $id > ../build.log
"""

EXAMPLES: dict[str, examples.Files] = {
    "greeter": {
        "greeter/Dockerfile": """\
FROM alpine
ENV NAME=student
WORKDIR /srv
RUN echo 'echo "Hello, $NAME, from $PWD"' > greet
CMD ["sh", "greet"]
""",
        "greeter/flatten": FLATTEN.format(""),
    },
}
"""Name to files: what `lab.example` writes."""


def committed(lab: Lab) -> Verdict:
    """Measure that lfstudent/alpine:training is alpine and one layer more, with /data in it."""
    own = _above_alpine(lab, lab.saved("lfstudent/alpine:training"))
    if own is None:
        return Verdict(passed=False, measured="its layers are not those of alpine", cause="it was not committed, or of another image")
    if len(own) != 1:
        return Verdict(passed=False, measured=f"it has {len(own)} layers above those of alpine")
    has = "data" in own[0].added
    return Verdict(has, f"one layer above alpine, {'with' if has else 'without'} /data", None if has else "the container had no /data")


def pushed(lab: Lab) -> Verdict:
    """Measure that the registry with accounts has guillermotti/lfstudent:latest, one layer, for who has the account alone."""
    lab.must_be_open()
    registry = with_accounts()
    if registry.head(REPOSITORY, "latest") is None:
        return Verdict(passed=False, measured=f"the registry has no {REPOSITORY}:latest")
    layers = len(Manifest.parse(registry.manifest(REPOSITORY, "latest")[1]).layers)
    cause = "it is not the imported one, which is flat" if layers != 1 else None
    measured = f"the registry has {REPOSITORY}:latest, {layers} layer{'s' if layers > 1 else ''}"
    return Verdict(layers == 1, measured, cause)


def greets(lab: Lab) -> Verdict:
    """Measure that greeter:flat has one layer, with the script, and is run as greeter is."""
    flat, whole = lab.saved("greeter:flat"), lab.saved("greeter")
    if len(flat.layers) != 1:
        return Verdict(passed=False, measured=f"greeter:flat has {len(flat.layers)} layers", cause="it is not flat")
    if lab.in_image("greeter:flat", "srv/greet") is None:
        return Verdict(passed=False, measured="greeter:flat has no /srv/greet", cause="it was imported from another container")
    lacking = [key for key in ("Cmd", "WorkingDir") if flat.settings.get(key) != whole.settings.get(key)]
    lacking += [] if "NAME=student" in (flat.settings.get("Env") or []) else ["Env"]
    told = "greeter:flat has one layer, "
    if not lacking:
        return Verdict(passed=True, measured=f"{told}and is run as greeter is")
    return Verdict(
        passed=False, measured=f"{told}and not greeter's {', '.join(sorted(lacking))}", cause="an archive of files has no settings"
    )


def mine(lab: Lab) -> Verdict:
    """Measure that the image mine is alpine and one layer that adds a page and removes a file, and that it serves the page."""
    image = lab.saved("mine")
    own = _above_alpine(lab, image)
    if own is None or len(own) != 1:
        return Verdict(
            passed=False, measured="it is not alpine and one layer more", cause="a container of alpine, committed once, would be"
        )
    if "srv/index.html" not in own[0].added or "etc/profile" not in own[0].removed:
        found = [f"adds {', '.join(own[0].added) or 'nothing'}", f"removes {', '.join(own[0].removed) or 'nothing'}"]
        return Verdict(passed=False, measured=f"its layer {' and '.join(found)}")
    if image.settings.get("Cmd") != ["httpd", "-f", "-h", "/srv"]:
        said = json.dumps(image.settings.get("Cmd"))
        return Verdict(passed=False, measured=f"its Cmd is {said}", cause="commit keeps that of the container, unless it is told another")
    return Verdict(passed=True, measured="alpine and one layer, with the page, without /etc/profile, and it serves /srv")


def _above_alpine(lab: Lab, image: Saved) -> tuple[Step, ...] | None:
    """Return the layers that an image has above those of alpine; None where it does not begin with these."""
    base = [step.diff_id for step in lab.saved("alpine").layers]
    layers = image.layers
    return layers[len(base) :] if [step.diff_id for step in layers[: len(base)]] == base else None


GONE = "docker container rm --force {} > /dev/null 2>&1 || true\n"
RUN = GONE.format("myalpine") + "docker container run --name myalpine alpine sh -c '{}' > /dev/null 2>&1\n"
COMMIT = "docker container commit myalpine lfstudent/alpine:training > /dev/null\n"
ACCOUNT = "docker login --username student --password-stdin $ACCOUNTS < $ACCOUNTS_PASSWORD > /dev/null 2>&1\n"
NAME = f"$ACCOUNTS/{REPOSITORY}:latest"
EXPORT = RUN.format("date > /data") + "docker container export myalpine > lfstudent_alpine.tar\n"
IMPORT = f"docker image import lfstudent_alpine.tar {NAME} > /dev/null\n"
PUSH = f"docker image push {NAME} > /dev/null\n"
GREETER = f"docker image pull alpine > /dev/null\n{examples.script(EXAMPLES['greeter'])}"
OTHER = f"docker image build -t {NAME} - > build.log 2>&1 << 'END'\nFROM alpine\nRUN date > /other\nEND\n"
BY_FILE = """docker image build -t mine - > build.log 2>&1 << 'END'
FROM alpine
RUN echo mine > /srv/index.html
RUN rm /etc/profile
CMD ["httpd", "-f", "-h", "/srv"]
END
"""
MINE = GONE.format("making") + "docker container run --name making alpine sh -c '{}' > /dev/null 2>&1\n"
PAGE = "echo mine > /srv/index.html; rm /etc/profile"
SERVE = '--change \'CMD ["httpd", "-f", "-h", "/srv"]\''


def _flatten(*changes: str) -> str:
    """Return the lines by which greeter/flatten imports with these instructions, and is run."""
    told = "".join(f"--change '{change}' " for change in changes)
    return examples.script({"greeter/flatten": FLATTEN.format(told)}) + "greeter/flatten\n"


CHECKPOINTS = (
    Checkpoint(
        "committed",
        task="the image lfstudent/alpine:training is alpine and one layer more, with /data",
        measure=committed,
        hints=(
            "docker container commit takes a container and the name of an image",
            "docker container commit myalpine lfstudent/alpine:training",
        ),
        solution=RUN.format("date > /data") + COMMIT,
        undo="docker image rm lfstudent/alpine:training > /dev/null\n",
        near_misses={
            "nothing was changed": RUN.format("true") + COMMIT,
            "exported and imported": EXPORT + "docker image import lfstudent_alpine.tar lfstudent/alpine:training > /dev/null",
            "alpine under that name": "docker image pull alpine > /dev/null; docker image tag alpine lfstudent/alpine:training",
        },
    ),
    Checkpoint(
        "pushed",
        task=f"the registry on localhost:5001 has {REPOSITORY}:latest, the imported image",
        measure=pushed,
        hints=(
            "the name of an image says where it is pushed: without a host to docker.io",
            "docker login $ACCOUNTS first; the account is student, its password is in the file $ACCOUNTS_PASSWORD",
            f"import or tag it as {NAME}, then push that",
        ),
        given=EXPORT,
        solution=ACCOUNT + IMPORT + PUSH,
        undo=OTHER + PUSH,
        near_misses={
            "tagged, not pushed": ACCOUNT + IMPORT,
            "pushed without an account": f"docker logout $ACCOUNTS > /dev/null 2>&1\n{IMPORT}{PUSH.strip()} 2>&1 || true",
            "the committed one": f"{ACCOUNT}{COMMIT}docker image tag lfstudent/alpine:training {NAME}\n{PUSH}",
        },
    ),
    Checkpoint(
        "greets",
        task="the image greeter:flat has one layer, and a container of it does what one of greeter does",
        measure=greets,
        hints=(
            "export writes the files of a container; Cmd, Env and WorkingDir are no files",
            "docker image import --change takes instructions of a Dockerfile",
            "one --change each for CMD, WORKDIR and ENV in greeter/flatten",
        ),
        given=GREETER,
        solution=_flatten('CMD ["sh", "greet"]', "WORKDIR /srv", "ENV NAME=student"),
        undo=f"{examples.script(EXAMPLES['greeter'])}greeter/flatten",
        near_misses={
            "as it was": "greeter/flatten",
            "the command alone": _flatten('CMD ["sh", "/srv/greet"]'),
            "not flat": "greeter/flatten; docker image tag greeter greeter:flat",
        },
    ),
    Checkpoint(
        "mine",
        task="the image mine is alpine and one layer: with /srv/index.html, without /etc/profile; its command is httpd -f -h /srv",
        measure=mine,
        hints=(
            "change a container of alpine, then commit it once",
            "commit has --change, too",
            'docker container commit --change \'CMD ["httpd", "-f", "-h", "/srv"]\' NAME mine',
        ),
        solution=MINE.format(PAGE) + f"docker container commit {SERVE} making mine > /dev/null",
        undo="docker image rm mine > /dev/null\n",
        near_misses={
            "the command of the container": MINE.format(PAGE) + "docker container commit making mine > /dev/null",
            "the file stays": MINE.format("echo mine > /srv/index.html") + f"docker container commit {SERVE} making mine > /dev/null",
            "by a Dockerfile": BY_FILE,
        },
    ),
)
