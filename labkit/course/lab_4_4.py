"""Checkpoints of lab 4.4, CRI-O: what a pod is to the kernel, which runtime made it, and a crio.conf that is in order."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.course.checkpoints import Checkpoint, Verdict
from labkit.kernel import namespaces
from labkit.kernel.xray import Machine
from labkit.runtimes import crio, crio_conf
from labkit.runtimes.cri import Client, pod

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "CRI-O"
AIMS = (
    "ask for a pod as Kubernetes does, call by call, and say what the kernel got for each",
    "tell what the containers of a pod share, and who holds it for them",
    "let another low-level runtime make a pod, and find the fault in a crio.conf",
)
NEEDS = ("root", "namespaces", "cgroups", "execs", "runc", "crun", "containerd", "registry", "cri")
CLAIMS = (("image", pod.IMAGE), ("pods", pod.NAMESPACE))


def shared(_: Lab) -> Verdict:
    """Measure that two containers of the pod web run, in one network that is not the machine's, and each with processes of its own."""
    first = _processes("web")
    if isinstance(first, Verdict):
        return first
    if len(first) < 2:
        return Verdict(passed=False, measured=f"containers of web that run: {', '.join(first) or 'none'}", cause="two are wanted")
    one, two = sorted(first.items())[:2]
    same = namespaces.shared(one[1], two[1])
    own = not namespaces.shared(one[1], Machine().reference)["net"]
    wrong = [] if own else ["their network is the machine's"]
    wrong += [] if same["net"] else ["each has a network of its own"]
    wrong += ["they see each other's processes"] if same["pid"] else []
    measured = f"{one[0]} and {two[0]} run: net {_word(same=same['net'])}, pid {_word(same=same['pid'])}"
    return Verdict(not wrong, measured, "; ".join(wrong) or None)


def plug(_: Lab) -> Verdict:
    """Measure that a container of the pod plug runs, and that the handler crun made it."""
    first = _processes("plug")
    if isinstance(first, Verdict):
        return first
    with Client(crio.endpoint().socket()) as client:
        handler = (pod.find(client, "plug") or {}).get("runtime_handler")
    if not first:
        return Verdict(passed=False, measured="the pod plug has no container that runs", cause=f"its handler is {handler or 'the default'}")
    made = handler == "crun"
    cause = None if made else f"its handler is {handler}" if handler else "it was asked for without a handler: that is the default one"
    return Verdict(made, f"{', '.join(sorted(first))} runs in plug", cause)


def mended(lab: Lab) -> Verdict:
    """Measure that CRI-O can take broken.conf, which still says all that it said, but for the cgroups of the monitors."""
    file = lab.directory / "broken.conf"
    if not file.is_file():
        return Verdict(passed=False, measured="there is no broken.conf")
    text = file.read_text()
    found = crio_conf.problems(text, file.name)
    if found:
        return Verdict(passed=False, measured=f"{len(found)} problem{'' if len(found) == 1 else 's'}", cause=lab.short(str(found[0])))
    lost = sorted(_keys(tomllib.loads(CONF)) - _keys(tomllib.loads(text)) - MONITORS)
    cause = f"{lost[0]} is not there any more" if lost else None
    return Verdict(not lost, "no problem", cause)


MONITORS = {"conmon_cgroup", "monitor_cgroup"}
"""Keys that may be left out: without them the cgroup driver's own place is taken."""


def _processes(name: str) -> dict[str, int] | Verdict:
    """Return the first process of each container of a pod that runs; what was measured, where there is no such pod."""
    with Client(crio.endpoint().socket()) as client:
        there = pod.find(client, name)
        if there is None:
            return Verdict(passed=False, measured=f"there is no pod {name} in the namespace {pod.NAMESPACE}")
        listed = [one for one in pod.containers(client, there["id"]) if one["state"] == "CONTAINER_RUNNING"]
        found = {one["metadata"]["name"]: int(client.container(one["id"])["info"].get("pid") or 0) for one in listed}
    return {one: pid for one, pid in found.items() if pid in Machine().members}


def _keys(table: dict[str, Any]) -> set[str]:
    below = [_keys(value) for value in table.values() if isinstance(value, dict)]
    return set(table).union(*below)


def _word(*, same: bool) -> str:
    return "shared" if same else "own"


POD = """cat > {0}.json << END
{{"metadata": {{"name": "{0}", "uid": "{0}", "namespace": "lab"}}, "hostname": "{0}", "log_directory": "$LAB",
 "linux": {{"cgroup_parent": "/lab-4.4/kubepods/{0}", "security_context": {{"namespace_options": {{"pid": "CONTAINER"{1}}}}}}}}}
END
labkit cri RunPodSandbox "{{\\"config\\": $(cat {0}.json){2}}}" | grep -oE '[0-9a-f]{{64}}' > {0}.id
"""
CREATE = """labkit cri CreateContainer - << END | grep -oE '[0-9a-f]{{64}}' > {1}.id
{{"pod_sandbox_id": "$(cat {0}.id)", "sandbox_config": $(cat {0}.json), "config": {{
 "metadata": {{"name": "{1}"}}, "image": {{"image": "docker.io/library/busybox:latest"}}, "command": ["sleep", "600"],
 "linux": {{"security_context": {{"namespace_options": {{"pid": "CONTAINER"{2}}}}}}}}}}}
END
"""
START = 'labkit cri StartContainer "{{\\"container_id\\": \\"$(cat {0}.id)\\"}}" > /dev/null\n'
STOP = 'labkit cri StopContainer "{{\\"container_id\\": \\"$(cat {0}.id)\\"}}" > /dev/null\n'
PULL = """labkit cri PullImage '{"image": {"image": "docker.io/library/busybox:latest"}}' > /dev/null\n"""


def _container(of: str, name: str, more: str = "") -> str:
    """Return the lines that make a container in a pod and start it."""
    return CREATE.format(of, name, more) + START.format(name)


def _broken(driver: str, cgroup: str, keys: str = "conmon|monitor") -> str:
    """Return the line that gives broken.conf a cgroup driver, and cgroups for the monitors."""
    driven = f's/^(cgroup_manager) = .*/\\1 = "{driver}"/'
    return f"sed -i -E '{driven}; s/^(({keys})_cgroup) = .*/\\1 = \"{cgroup}\"/' broken.conf\n"


CONF = crio_conf.configuration(Path("$LAB"), {name: shutil.which(name) for name in ("runc", "crun")}, Path("/etc/cni/net.d"))
GIVEN = f"> mounts.conf\ncat > broken.conf << END\n{CONF}END\n"
PLUG = ', \\"runtime_handler\\": \\"{0}\\"'
HOSTNAME = '"hostname": "web", '
NODE = ', "network": "NODE"'
BROKEN = _broken("cgroupfs", "machine.slice")

CHECKPOINTS = (
    Checkpoint(
        "shared",
        task="two containers of the pod web run: one network, processes of their own",
        measure=shared,
        hints=(
            "a pod is made first; each container is made in it, and started",
            'web = lab.pod("web"), and web.container("one", ["sleep", "600"])',
        ),
        given=PULL,
        solution=POD.format("web", "", "") + _container("web", "one") + _container("web", "two"),
        undo=STOP.format("two"),
        near_misses={
            "one container alone": POD.format("web", "", "") + _container("web", "one"),
            "the second is made, not started": POD.format("web", "", "") + _container("web", "one") + CREATE.format("web", "two", ""),
            "two pods with one each": POD.format("web", "", "") + _container("web", "one")
            + POD.format("two", "", "") + _container("two", "main"),
            "the machine's network": POD.format("web", NODE, "").replace(HOSTNAME, "")
            + _container("web", "one", NODE) + _container("web", "two", NODE),
        },
    ),
    Checkpoint(
        "plug",
        task="a container runs in a pod called plug, which the handler crun has made",
        measure=plug,
        hints=("RunPodSandbox has a field runtime_handler beside config", 'lab.pod("plug", handler="crun")'),
        given=PULL,
        solution=POD.format("plug", "", PLUG.format("crun")) + _container("plug", "main"),
        undo=STOP.format("main"),
        near_misses={
            "no handler asked for": POD.format("plug", "", "") + _container("plug", "main"),
            "the handler runc": POD.format("plug", "", PLUG.format("runc")) + _container("plug", "main"),
            "a sandbox alone": POD.format("plug", "", PLUG.format("crun")),
            "another pod": POD.format("web", "", PLUG.format("crun")) + _container("web", "main"),
        },
    ),
    Checkpoint(
        "mended",
        task="CRI-O can take broken.conf",
        measure=mended,
        hints=(
            'lab.crio_problems("broken.conf") names each table and key',
            "cgroupfs makes directories, slices are systemd's: such a monitor goes into its pod's cgroup",
            "sed -i 's|\"machine.slice\"|\"pod\"|' broken.conf",
        ),
        given=GIVEN + BROKEN,
        solution=_broken("cgroupfs", "pod"),
        undo=BROKEN,
        near_misses={
            "one key of three": _broken("cgroupfs", "pod", "conmon"),
            "those of the handlers alone": _broken("cgroupfs", "pod", "monitor"),
            "another slice": _broken("cgroupfs", "system.slice"),
            "the driver of systemd, and no slice": _broken("systemd", "monitors"),
            "a driver that there is not": _broken("v2", "pod"),
            "nothing in it": "> broken.conf\n",
        },
    ),
)
