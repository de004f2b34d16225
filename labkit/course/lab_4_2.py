"""Checkpoints of lab 4.2, containerd: a container is data and a task is a process, and a pod's network is a file in a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.kernel import commands, namespaces, network
from labkit.kernel.xray import Machine, parts
from labkit.runtimes import containerd, containerd_daemon
from labkit.runtimes.cri import Client

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "containerd"
AIMS = (
    "run a container with no engine above containerd, and say who keeps it",
    "tell containerd's two words apart: container and task",
    "put another low-level runtime in the place of runc",
    "find out why a pod is refused a network, and give it one",
)
NEEDS = ("root", "containerd", "registry", "cri", "crun", "execs")
NAMESPACE = "lab-4.2"
"""Of containerd, and of pods. It is called as the lab's cgroup, for ctr puts a container into the cgroup /NAMESPACE/NAME."""

CLAIMS = (("containerd", NAMESPACE),)

CHAIN = ("containerd-shim", "containerd")
"""Who keeps a container of containerd, from its parent on."""


def runs(_: Lab) -> Verdict:
    """Measure that web runs, kept by a shim and containerd."""
    pid = _tasks().get("web", ("", 0))[1]
    if not pid:
        return _absent("web", "containerd has web, and no task of it")
    found = {part.member.comm for part in parts(pid, Machine())}
    lacking = [each for each in CHAIN if each not in found]
    cause = f"no {' and no '.join(lacking)} has to do with it" if lacking else None
    chain = ", ".join(each for each in CHAIN if each in found)
    return Verdict(not lacking, f"web runs, kept by {chain or 'nobody'}", cause)


def kept(_: Lab) -> Verdict:
    """Measure that containerd has the container kept, and no task of it."""
    status, _pid = _tasks().get("kept", ("", 0))
    if status:
        cause = "a task of it runs" if status == "RUNNING" else "its task has ended, and is not deleted"
        return Verdict(passed=False, measured=f"kept has a task: {status.lower()}", cause=cause)
    if "kept" not in _containers():
        return _absent("kept", "")
    return Verdict(passed=True, measured="kept is a container without a task")


def mended(lab: Lab) -> Verdict:
    """Measure that the pod mended runs in the lab's own containerd, and has an address in a network of its own."""
    socket = containerd_daemon.socket(lab.directory / "own")
    if not socket.is_socket():
        return Verdict(passed=False, measured="mended does not run", cause="the containerd called own is not there")
    with Client(socket) as client:
        pod = next((client.pod(each["id"]) for each in client.pods() if each["metadata"]["name"] == "mended"), None)
        ready = client.conditions()["NetworkReady"]
    pid = int(pod["info"].get("pid") or 0) if pod and pod["state"] == "SANDBOX_READY" else 0
    if not pid:
        return Verdict(passed=False, measured="mended does not run", cause=_why_not(pod, ready))
    if _shares_its_network(pid):
        return Verdict(passed=False, measured="mended runs", cause="its network is that of the daemon")
    addresses = [each for link in network.links(pid) if link.ifname != "lo" for each in link.addresses if ":" not in each]
    if not addresses:
        return Verdict(passed=False, measured="mended runs", cause="it has no address")
    return Verdict(passed=True, measured=f"mended runs, with {addresses[0]}")


def _why_not(pod: dict[str, Any] | None, ready: dict[str, Any]) -> str:
    if not ready["status"]:
        return f"NetworkReady is false: {ready['message']}"
    return "the pod is there, and has no process" if pod else "own has no pod mended"


def _shares_its_network(pid: int) -> bool:
    """Tell whether a pod is in the network namespace of its shim, which is the daemon's."""
    shim = next(iter(Machine().ancestors(pid)), None)
    return shim is not None and namespaces.shared(pid, shim.pid)["net"]


def _tasks() -> dict[str, tuple[str, int]]:
    """Return status and pid of each task, by the name of its container."""
    listed = _listed("tasks", "list").splitlines()[1:]
    return {words[0]: (words[2], int(words[1])) for line in listed if len(words := line.split()) == 3}


def _containers() -> list[str]:
    return _listed("containers", "list", "--quiet").split()


def _listed(*words: str) -> str:
    return commands.run(containerd.command(*words, within=NAMESPACE)).stdout


def _absent(name: str, without_task: str) -> Verdict:
    cause = without_task if name in _containers() else f"containerd has no container {name} in {NAMESPACE}"
    return Verdict(passed=False, measured=f"{name} {'does not run' if without_task else 'is not there'}", cause=cause)


BUSYBOX = "docker.io/library/busybox:latest"
CTR = f"ctr --namespace {NAMESPACE}"
PULL = "{} image pull --hosts-dir /etc/containerd/certs.d {} > /dev/null 2>&1\n"
RUN = f"{CTR} run --detach --cgroup /lab-4.2/containerd.{{0}} {BUSYBOX} {{0}} sleep 600\n"
KILL = f"{CTR} task kill --signal KILL kept\n" + until(f"{CTR} task list | grep -q '^kept .*STOPPED'")
DELETE = f"{CTR} task delete kept > /dev/null 2>&1 || true\n"
GONE = f"{CTR} task delete --force {{0}} > /dev/null 2>&1 || true\n{CTR} container delete {{0}}\n"
CALL = "labkit cri --socket own/containerd.sock "
OWN = (
    containerd_daemon.lines("$LAB/own")
    + "\n"
    + PULL.format("ctr --address $LAB/own/containerd.sock --namespace k8s.io", "registry.k8s.io/pause:3.6")
)
WHERE = """where=$(labkit cri Status '{"verbose": true}' | grep -o 'confDir[^,]*' | grep -o '/[^"\\]*')
"""
NETWORK = WHERE + "cp $where/*.conflist own/cni/\n"
NO_PLUGIN = WHERE + 'sed \'s/"bridge",/"switch",/\' $where/*.conflist > own/cni/10-lab.conflist\n'
READY = until(f"{CALL}Status | grep -A 1 NetworkReady | grep -q true")
POD = """cat > pod.json << 'END'
{{"config": {{"metadata": {{"name": "{}", "uid": "1", "namespace": "lab-4.2"}},
  "linux": {{"cgroup_parent": "/lab-4.2"{}}}}}}}
END
"""
HOST = ', "security_context": {"namespace_options": {"network": "NODE"}}'
START = CALL + "RunPodSandbox - < pod.json > /dev/null{}\n"
REFUSED = START.format(" 2>&1 || true")

CHECKPOINTS = (
    Checkpoint(
        "runs",
        task="containerd runs a container called web in its namespace lab-4.2",
        measure=runs,
        hints=("ctr run takes an image, a name and a program", f"{CTR} run --detach {BUSYBOX} web sleep 600"),
        given=PULL.format(CTR, BUSYBOX),
        solution=RUN.format("web"),
        undo=GONE.format("web"),
        near_misses={
            "made, not started": f"{CTR} container create {BUSYBOX} web sleep 600\n",
            "another name": RUN.format("kept"),
            "its process has ended": RUN.format("web").replace("sleep 600", "true") + until(f"{CTR} task list | grep -q '^web .*STOPPED'"),
        },
    ),
    Checkpoint(
        "kept",
        task="containerd has a container called kept, and no task of it",
        measure=kept,
        hints=("a task that has ended is still listed", "ctr task delete takes what is left of a process; ctr container delete the rest"),
        given=PULL.format(CTR, BUSYBOX) + RUN.format("kept"),
        solution=KILL + DELETE,
        undo=f"{CTR} task start --detach kept\n",
        near_misses={
            "killed, not deleted": KILL,
            "paused": f"{CTR} task pause kept\n",
            "the container as well": KILL + GONE.format("kept"),
        },
    ),
    Checkpoint(
        "mended",
        task="the containerd called own runs a pod called mended, with a network of its own",
        measure=mended,
        hints=(
            "own reads its networks from the directory own/cni, at any time",
            "section 7 shows the file of the machine's containerd: it will do",
            "then pod.json with the name mended, and RunPodSandbox again",
        ),
        given=OWN,
        solution=NETWORK + READY + POD.format("mended", "") + START.format(""),
        undo=f"id=$({CALL}ListPodSandbox | grep -o '[0-9a-f]\\{{64\\}}')\n"
        f'{CALL}StopPodSandbox "{{\\"pod_sandbox_id\\": \\"$id\\"}}" > /dev/null\n',
        near_misses={
            "no network yet": POD.format("mended", "") + REFUSED,
            "the daemon's network": POD.format("mended", HOST) + START.format(""),
            "a plugin that is not there": NO_PLUGIN + READY + POD.format("mended", "") + REFUSED,
            "another pod": NETWORK + READY + POD.format("web", "") + START.format(""),
        },
    ),
)
