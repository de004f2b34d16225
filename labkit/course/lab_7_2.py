"""Checkpoints of lab 7.2, an image from a Dockerfile: each reads the image as it lies on disk, never what the build printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.course import examples
from labkit.course.checkpoints import Checkpoint, Verdict
from labkit.errors import LabError
from labkit.images.saved import Saved
from labkit.runtimes import docker_images

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "An image from a Dockerfile"
AIMS = (
    "say of each instruction whether it makes a layer, changes a setting, or does nothing yet",
    "tell which layers a second build takes from the cache, and why",
    "keep out of the context what the image does not need",
    "mend a build that begins anew each time",
)
NEEDS = ("root", "namespaces", "dockerd", "registry")

EXAMPLES: dict[str, examples.Files] = {
    "seventeen": {
        "seventeen/Dockerfile": """\
FROM alpine
ARG NO=v1
LABEL version="1.0" stage="dev"
ENV WEB=192.168.2.3
SHELL ["/bin/ash", "-ec"]
RUN echo $NO > /no; mkdir /data
WORKDIR /code
COPY hello.tar /copied/
ADD hello.tar /added/
EXPOSE 80 443
VOLUME /data
USER nobody
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=1s --retries=2 CMD test -e /tmp/well
ONBUILD RUN echo child > /tmp/child
ENTRYPOINT ["/bin/ash", "-c"]
CMD ["trap 'echo USR1 came; exit' USR1; while :; do sleep 0.1; done"]
"""
    },
    "one": {
        "one/Dockerfile": """\
FROM scratch
COPY --from=busybox /bin/busybox /busybox
CMD ["/busybox", "echo", "one file"]
"""
    },
    "slow": {
        "slow/Dockerfile": """\
FROM alpine
COPY . /app
RUN cat /proc/sys/kernel/random/uuid > /made; find / -xdev -type f | xargs md5sum >> /made
CMD ["cat", "/app/version"]
""",
        "slow/twice": """\
#!/bin/sh -e
cd "$(dirname "$0")"
for number in 1 2; do
    echo $number > version
    docker image build -t slow:$number . > ../build.log 2>&1
done
""",
    },
    "wasteful": {
        "wasteful/Dockerfile": """\
FROM alpine
RUN head -c 5000000 /dev/zero > /big
RUN md5sum /big > /sum
RUN rm /big
""",
    },
}
"""Name to files: what `lab.example` writes."""

SMALL = 100_000
"""Bytes that the layers of `small` may have above those of alpine."""


def tidy(_: Lab) -> Verdict:
    """Measure that lfstudent/twice is there, and no image without a name."""
    if not docker_images.known("lfstudent/twice"):
        return Verdict(passed=False, measured="there is no image lfstudent/twice")
    left = len(docker_images.dangling())
    measured = f"lfstudent/twice is there, and {left or 'no'} dangling image{'s' if left > 1 else ''}"
    return Verdict(not left, measured, "what had its name before has none now, and stays" if left else None)


def context(lab: Lab) -> Verdict:
    """Measure that the image of site has its page, and neither the key nor the large file that lie beside it."""
    held = _files(lab.saved("lfstudent/site"))
    if "index.html" not in held:
        return Verdict(passed=False, measured="the image has no /index.html", cause="it was not in the context, or not copied")
    beside = sorted({"big", "key"} & held)
    measured = f"the image has /index.html{''.join(f' and /{name}' for name in beside)}"
    return Verdict(not beside, measured, "they were sent with the context, and COPY takes all of it" if beside else None)


def cached(lab: Lab) -> Verdict:
    """Measure that slow:1 and slow:2 have versions of their own, and the layer of the slow step in common."""
    versions = [(lab.in_image(f"slow:{number}", "app/version") or b"").decode().strip() for number in (1, 2)]
    if versions != ["1", "2"]:
        said = [version or "none" for version in versions]
        return Verdict(passed=False, measured=f"/app/version is {said[0]} in slow:1, {said[1]} in slow:2", cause="each must have its own")
    made = [[(at, step.diff_id) for at, step in enumerate(lab.saved(f"slow:{number}").layers) if "made" in step.added] for number in (1, 2)]
    if not all(made):
        return Verdict(passed=False, measured="no layer has /made", cause="the slow step is gone")
    if made[0] == made[1]:
        return Verdict(passed=True, measured="slow:1 and slow:2 share the layer of the slow step")
    changed = next((step for step in lab.saved("slow:2").layers if step.diff_id not in _diff_ids(lab, "slow:1")), None)
    cause = f"the first step that is not the same is {changed.instruction}, and all after it is done again" if changed else None
    return Verdict(passed=False, measured="the slow step was done for each", cause=cause)


def small(lab: Lab) -> Verdict:
    """Measure that the image small has the sum of the large file, and that the file is in no layer of it."""
    image = lab.saved("small")
    if not (lab.in_image("small", "sum") or b"").split():
        return Verdict(passed=False, measured="the image small has no /sum", cause="the sum of /big is what it is built for")
    own = [step for step in image.layers if step.diff_id not in _diff_ids(lab, "alpine")]
    size = sum(step.size for step in own)
    large = max(own, key=lambda step: step.size)
    if size < SMALL:
        return Verdict(passed=True, measured="small has /sum, and less than 100 kB above alpine")
    return Verdict(passed=False, measured="small has more than 100 kB above alpine", cause=f"the layer of {large.instruction} has them")


def _files(image: Saved) -> set[str]:
    """Return the paths that a container of the image would see."""
    held: set[str] = set()
    for step in image.layers:
        held = {path for path in held if not any(f"{path}/".startswith(f"{gone}/") for gone in step.removed)} | {*step.added}
    return held


def _diff_ids(lab: Lab, name: str) -> set[str]:
    try:
        return {step.diff_id for step in lab.saved(name).layers}
    except LabError:
        return set()  # a build may have taken it without giving it a name here


QUIET = "> $LAB/build.log 2>&1"
ANEW = "FROM alpine\\nRUN cat /proc/sys/kernel/random/uuid > data\\n"  # by date, two builds in one second would be the same image
TWICE = f"printf '{ANEW}' | docker image build --no-cache -t lfstudent/twice - {QUIET}\n"
REMOVE = "docker image ls --quiet --filter=dangling=true | xargs --no-run-if-empty docker image rm > /dev/null\n"
SITE = """mkdir -p site
printf 'FROM scratch\\nCOPY . /\\n' > site/Dockerfile; echo '<h1>Hello</h1>' > site/index.html; echo secret > site/key
head -c 5000000 /dev/zero > site/big
rm -f site/.dockerignore
"""
BUILD_SITE = f"docker image build -t lfstudent/site site {QUIET}\n"
SLOW = f"docker image pull alpine > /dev/null\n{examples.script(EXAMPLES['slow'])}"
ORDER = """cat > slow/Dockerfile << 'END'
FROM alpine
RUN cat /proc/sys/kernel/random/uuid > /made; find / -xdev -type f | xargs md5sum >> /made
COPY . /app
CMD ["cat", "/app/version"]
END
"""
LARGE = "docker image pull alpine > /dev/null\n"
ONE_STEP = "head -c 5000000 /dev/zero > /big && md5sum /big > /sum && rm /big"


def _small(*lines: str) -> str:
    told = "\\n".join(("FROM alpine", *lines))
    return f"printf '{told}\\n' | docker image build -t small - {QUIET}\n"


CHECKPOINTS = (
    Checkpoint(
        "tidy",
        task="lfstudent/twice was built, and no image without a name is left",
        measure=tidy,
        hints=("docker image ls --filter=dangling=true lists those that lost their name", "docker image rm takes their ids"),
        solution=TWICE + TWICE + REMOVE,
        undo=TWICE,
        near_misses={"built twice, nothing removed": TWICE + TWICE, "all removed": f"{TWICE}{TWICE}docker image prune -af > /dev/null"},
    ),
    Checkpoint(
        "context",
        task="the image lfstudent/site has the page of the directory site, and neither its key nor its large file",
        measure=context,
        hints=("what .dockerignore names is not sent", "site/.dockerignore with two lines: big and key; then build again"),
        given=SITE,
        solution=f"printf 'big\\nkey\\n' > site/.dockerignore\n{BUILD_SITE}",
        undo=f"rm site/.dockerignore\n{BUILD_SITE}",
        near_misses={
            "one of the two": f"echo big > site/.dockerignore\n{BUILD_SITE}",
            "in the wrong directory": f"printf 'big\\nkey\\n' > .dockerignore\n{BUILD_SITE}",
            "removed in a later layer": "printf 'FROM alpine\\nCOPY . /\\nRUN rm /key\\n' > site/Dockerfile\n" + BUILD_SITE,
            "everything": f"echo '*' > site/.dockerignore\nprintf 'FROM alpine\\n' | docker image build -t lfstudent/site - {QUIET}",
        },
    ),
    Checkpoint(
        "cached",
        task="slow:1 and slow:2 have versions of their own, and the slow step was done once for both",
        measure=cached,
        hints=(
            "a step is taken from the cache while its instruction, and what it copies, are as they were, and so all before it",
            "version changes with each build, and a step above copies it",
            "RUN above COPY",
        ),
        given=SLOW,
        solution=f"{ORDER}slow/twice",
        undo=f"{examples.script(EXAMPLES['slow'])}slow/twice",
        near_misses={
            "built as it was": "slow/twice",
            "one under two names": "slow/twice; docker image tag slow:1 slow:2",
            "the version left out": "echo version > slow/.dockerignore; slow/twice",
            "the step left out": "sed -i /made/d slow/Dockerfile; slow/twice",
            "no cache at all": f"{ORDER}sed -i 's/build -t/build --no-cache -t/' slow/twice; slow/twice",
        },
    ),
    Checkpoint(
        "small",
        task="the image small has the sum of a large file in /sum, and its layers less than 100 kB above those of alpine",
        measure=small,
        hints=(
            "rm in a later layer hides the file; the layer that has it stays as it is",
            "a layer has what is there when its instruction ends",
            "one RUN, with && between the three commands",
        ),
        given=LARGE,
        solution=_small(f"RUN {ONE_STEP}"),
        undo="docker image rm small > /dev/null\n",
        near_misses={
            "removed in a later layer": _small("RUN head -c 5000000 /dev/zero > /big", "RUN md5sum /big > /sum", "RUN rm /big"),
            "without the sum": _small("RUN head -c 5000000 /dev/zero > /big && rm /big"),
            "the file stays": _small("RUN head -c 5000000 /dev/zero > /big && md5sum /big > /sum"),
        },
    ),
)
