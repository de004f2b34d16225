"""A container as Kubernetes has it: a pod sandbox with one container in it, of an image that is made of the root directory.

Each carries the labs' label with an id of its own: by that alone, pods and images are removed.
"""

from __future__ import annotations

import math
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit import ledger, trace
from labkit.errors import LabError
from labkit.host.account import IdMap
from labkit.host.services import places
from labkit.kernel import processes, rooted, trees
from labkit.kernel.cgroups import members, subtree
from labkit.kernel.cgroups.delegation import homes
from labkit.kernel.commands import Completed
from labkit.kernel.processes import ending
from labkit.runtimes import containerd, ours, shims
from labkit.runtimes.container import Container, State, pick, running
from labkit.runtimes.cri import archive, logs
from labkit.runtimes.cri.client import CallError, Client
from labkit.runtimes.docker import mounted_root

LABEL = "labkit.container"
NAMESPACE = "labkit"
"""The namespace, in Kubernetes' sense, of the labs' pods."""

_K8S = "k8s.io"  # containerd's namespace of what its CRI plugin has
_STATES: Mapping[str, State] = {"CONTAINER_CREATED": "created", "CONTAINER_RUNNING": "running"}
_STARTERS = ("runc", "crun", "exe")
_OWN_PIDS = {"namespace_options": {"pid": "CONTAINER"}}  # shared ones need a negative oom_score_adj, and that CAP_SYS_RESOURCE
_NO_HANDLER = "labkit-has-no-such-runtime"
_PATIENCE = 20.0
_TICK = 0.05


class Cri:
    """Whatever serves the CRI at containerd's socket."""

    name = "cri"
    service = "containerd"

    def socket(self) -> Path:
        """Return where the server listens."""
        return places().containerd

    def available(self) -> str | None:
        """Return None where the server says that it runs containers, and has a network for them."""
        if not shutil.which("ctr"):
            return "no command ctr in PATH"
        if not self.socket().is_socket():
            return f"there is no socket {self.socket()}"
        return why_not_ready(self.socket())

    def version(self) -> str:
        """Return who serves, and its version.

        Shell:
            crictl version
        """
        self.must_be_available()
        with Client(self.socket()) as client:
            told = client.version()
        return f"{told['runtime_name']} {told['runtime_version']}"

    def id_map(self) -> IdMap:
        """Return an empty map: ids are the host's."""
        return ()

    def list(self) -> tuple[Container, ...]:
        """Return the containers of all pods; those of others as POD/CONTAINER.

        Shell:
            crictl ps -a
        """
        if self.available():
            return ()
        known = {entry.key["id"]: entry for entry in ours.entries(self._kind()).values()}
        with Client(self.socket()) as client:
            pods = {pod["id"]: pod["metadata"]["name"] for pod in client.pods()}
            return tuple(self._look(client, one, pods, known) for one in client.containers())

    def start(self, rootfs: Path, argv: Sequence[str], name: str) -> Container:
        """Run a program as first process of the one container of a pod, whose root is a copy of the directory.

        Shell:
            crictl runp pod.json; crictl create POD container.json pod.json; crictl start CONTAINER
        """
        self.must_be_available()
        real = rooted.must_be_directory(rootfs, argv)
        homes()
        key = {"rootfs": str(real), "socket": str(self.socket()), "id": uuid.uuid4().hex, "cgroup": f"{subtree()}/{self.name}.{name}"}
        with ours.making(self._kind(), name, self.list(), **key) as entry, Client(self.socket()) as client:
            self._make_image(entry, real)
            config = pod_config(entry)
            pod = client.run_pod(config)
            container = client.create(pod, container_config(entry, argv), config)
            entry.identity.update(pod=pod, container=container)
            client.start(container)
            self._note(client, entry)
        return pick(self.list(), name, self.name)

    def exec(self, name: str, argv: Sequence[str]) -> Completed:
        """Run a program in a running container.

        Shell:
            crictl exec -s CONTAINER PROGRAM
        """
        container = pick(self.list(), name, self.name)
        rooted.program(Path(f"/proc/{running(container)}/root"), argv[0])
        with Client(self.socket()) as client:
            return client.exec(self._identifier(client, container), argv)

    def stop(self, name: str, timeout: float = 10.0) -> None:
        """Ask the first process to end, kill it after `timeout`, and end the pod.

        Shell:
            crictl stop --timeout SECONDS CONTAINER; crictl stopp POD
        """
        entry = ours.entry(self._kind(), name, self.list())
        with Client(Path(entry.key["socket"])) as client:
            for pod in client.pods(**{LABEL: entry.key["id"]}):
                for container in client.containers(**{LABEL: entry.key["id"]}):
                    client.stop(container["id"], math.ceil(timeout))
                client.stop_pod(pod["id"])
        ours.end(entry)

    def remove(self, name: str) -> None:
        """Forget a stopped container with its pod and its image.

        Shell:
            crictl rm CONTAINER; crictl rmp POD; crictl rmi IMAGE
        """
        there = self.list()
        entry = ours.entry(self._kind(), name, there)
        for container in there:
            if container.name == name:
                ours.must_be_stopped(container)
        ledger.undo_one(entry)

    def log(self, name: str) -> tuple[logs.Line, ...]:
        """Return what a container of the lab wrote, each line with its time and stream.

        Shell:
            crictl logs CONTAINER
        """
        entry = ours.entry(self._kind(), name, self.list())
        return logs.read(directory(entry) / "container.log")

    def serve(self) -> None:
        """Let the server serve: containerd is a service, and has to answer already.

        Raises:
            LabError: it does not, and why.
        """
        self.must_be_available()

    def must_be_available(self) -> None:
        """Refuse where the server does not answer.

        Raises:
            LabError: why not, and what helps.
        """
        if why := self.available():
            raise LabError(f"{self.name} does not answer", cause=why, remedy=f"labkit up {self.service}")

    def import_image(self, entry: ledger.Entry, file: Path) -> None:
        """Hand an archive to the server: the CRI itself fetches images from registries only."""
        words = ["images", "import", "--digests=false", str(file)]
        argv = containerd.command(*words, within=_K8S, socket=Path(entry.key["socket"]))
        processes.run(argv, check=True, env=rooted.ENVIRONMENT, cwd="/", shell_line=f"ctr --namespace {_K8S} images import image.tar")

    def _kind(self) -> str:
        return f"{self.name} container"

    def _make_image(self, entry: ledger.Entry, rootfs: Path) -> None:
        with trace.silent():
            trees.make_tree(directory(entry).parent)
            file = trees.make_tree(directory(entry)) / "image.tar"
        archive.make(rootfs, file, image(entry), {LABEL: entry.key["id"]})
        self.import_image(entry, file)
        file.unlink()
        deadline = time.monotonic() + _PATIENCE
        with Client(Path(entry.key["socket"])) as client:
            while client.image(image(entry)) is None:  # the CRI plugin hears of it a moment later
                if time.monotonic() > deadline:
                    raise LabError(f"{entry.key['socket']}: the image {image(entry)} was imported and is not seen after {_PATIENCE:g} s")
                time.sleep(_TICK)

    def _look(self, client: Client, one: Mapping[str, Any], pods: Mapping[str, str], known: Mapping[str, ledger.Entry]) -> Container:
        state = _STATES.get(one["state"], "stopped")
        pid, entry = _pid(client, one["id"]) if state == "running" else None, known.get(one["labels"].get(LABEL, ""))
        name = entry.key["name"] if entry else f"{pods.get(one['pod_sandbox_id'], '?')}/{one['metadata']['name']}"
        return Container(self.name, name, state, pid, mounted_root(pid) if pid else None, ours=entry is not None)

    def _identifier(self, client: Client, container: Container) -> str:
        """Return the id of a container of the list."""
        ids = [str(one["id"]) for one in client.containers() if one["state"] == "CONTAINER_RUNNING"]
        return next(identifier for identifier in ids if _pid(client, identifier) == container.pid)

    def _note(self, client: Client, entry: ledger.Entry) -> None:
        """Note the first process and what keeps it, once the program runs.

        Raises:
            LabError: it ended as it began, with its exit status.
        """
        pid = _pid(client, entry.identity["container"])
        init = ending.known(pid) if pid else None
        fields = members.stat_fields(pid) if pid else []
        if init is None or not ours.wait_until_it_runs(init, _STARTERS):
            status = _ended(client, entry.identity["container"])
            raise LabError(f"the container {self.name}:{entry.key['name']} ended as it began", cause=f"exit status {status['exit_code']}")
        entry.identity.update(init=init, supervisor=ending.known(int(fields[1])) if fields else None)


def why_not_ready(socket: Path) -> str | None:
    """Return None where a server runs containers and has a network for them, else what it says."""
    try:
        with Client(socket) as client:
            conditions = client.conditions()
    except CallError as error:
        return f"{error.message}" + (f": {error.cause}" if error.cause else "")
    missing = [condition for condition in conditions.values() if not condition["status"]]
    return f"{missing[0]['type']} is false: {missing[0]['message']}" if missing else None


def image(entry: ledger.Entry) -> str:
    """Return the name of the image of a container."""
    return f"labkit.local/{entry.key['id']}:latest"


def directory(entry: ledger.Entry) -> Path:
    """Return where a container's log lies."""
    return ledger.state() / "cri" / str(entry.key["id"])


def pod_config(entry: ledger.Entry) -> dict[str, Any]:
    """Return the PodSandboxConfig of a container of the lab."""
    return {
        "metadata": {"name": entry.key["name"], "uid": entry.key["id"], "namespace": NAMESPACE},
        "hostname": entry.key["name"],
        "log_directory": str(directory(entry)),
        "labels": {LABEL: entry.key["id"]},
        "linux": {"cgroup_parent": f"/{entry.key['cgroup']}", "security_context": _OWN_PIDS},
    }


def container_config(entry: ledger.Entry, argv: Sequence[str]) -> dict[str, Any]:
    """Return the ContainerConfig of a container of the lab."""
    return {
        "metadata": {"name": entry.key["name"]},
        "image": {"image": image(entry)},
        "command": list(argv),
        "envs": [{"key": key, "value": value} for key, value in rooted.ENVIRONMENT.items()],
        "labels": {LABEL: entry.key["id"]},
        "log_path": "container.log",
        "linux": {"security_context": _OWN_PIDS},
    }


def _pid(client: Client, identifier: str) -> int | None:
    """Return the first process of a container, or None where it is gone meanwhile."""
    with suppress(CallError):
        return int(client.container(identifier)["info"].get("pid") or 0) or None
    return None


@ledger.undoes("cri container", survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    undo(entry)


def undo(entry: ledger.Entry, *, must_answer: bool = True) -> None:
    """End a container with its pod, and remove its image.

    Raises:
        LabError: the server does not answer: the processes are gone then, what it keeps of them is not.
    """
    socket = Path(entry.key["socket"])
    shims.end_clients(str(directory(entry) / "image.tar"))
    answers = socket.is_socket() and (must_answer or why_not_ready(socket) is None)
    if answers:
        with Client(socket) as client:
            _remove(client, entry)
    ours.end(entry)
    if any(known.kind == "tree" and known.key["path"] == str(directory(entry)) for known in ledger.live(ledger.owner())):
        trees.remove_tree(directory(entry))
    if not answers and must_answer:
        raise LabError(f"nobody serves the CRI at {socket}, and {entry.key['name']} is in its database", remedy="labkit up containerd")


def _ended(client: Client, identifier: str) -> dict[str, Any]:
    """Return the state of a container whose process is gone, once the server knows it."""
    deadline = time.monotonic() + _PATIENCE
    while (status := client.container(identifier))["state"] == "CONTAINER_RUNNING" and time.monotonic() < deadline:
        time.sleep(_TICK)
    return status


def _remove(client: Client, entry: ledger.Entry) -> None:
    """Remove pods and image; a pod that is still being made, for who was killed, is waited for.

    Raises:
        CallError: the server could not, also when it was asked again: it refuses while one of its shims is just ending.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            for pod in client.pods(**{LABEL: entry.key["id"]}):
                client.stop_pod(pod["id"])
                client.remove_pod(pod["id"])
            if not is_reserved(client, pod_config(entry)):
                break
        except CallError:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise LabError(f"{client.socket}: the pod {entry.key['name']} is neither there nor gone after {_PATIENCE:g} s")
        time.sleep(_TICK)
    client.remove_image(image(entry))


def is_reserved(client: Client, config: Mapping[str, Any]) -> bool:
    """Return whether the server has a pod of this name, also one in the making: it says so before it looks for the runtime."""
    try:
        client.remove_pod(client.run_pod(config, _NO_HANDLER))
    except CallError as error:
        return "reserve" in error.said
    return False
