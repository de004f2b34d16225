"""A pod of a lab, call by call: what a kubelet asks for, in its order. Pods and containers are found again by their names.

Each change is shown as the call that a person may type, with the ids in shell variables: `$web` is the pod web, `$web_one` its
container one.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import ledger, trace
from labkit.errors import CommandError, LabError
from labkit.kernel import namespaces
from labkit.kernel.cgroups import subtree
from labkit.runtimes.cri import claim, logs
from labkit.runtimes.cri.client import Client, Fields
from labkit.runtimes.cri.runtime import is_reserved
from labkit.runtimes.lifecycle import homes

NAMESPACE = "lab"
"""The namespace, in Kubernetes' sense, of the pods that a lab makes call by call; the lab claims it."""

IMAGE = "docker.io/library/busybox:latest"
OWN_PIDS = {"namespace_options": {"pid": "CONTAINER"}}
"""A PID namespace for each container: one for the pod needs CAP_SYS_RESOURCE."""

_KIND = "cri pod"
_PATIENCE = 20.0
_TICK = 0.05
_ID = "grep -oE '[0-9a-f]{64}'"


@dataclass(frozen=True)
class First:
    """The first process of a container of a pod.

    Attributes:
        name: POD/CONTAINER.
        pid: its process.
    """

    name: str
    pid: int


class Pod:
    """A pod sandbox and the containers in it.

    Args:
        socket: of the server.
        name: of the pod, and its host name.
        logs: the directory of its containers' logs.
        handler: the low-level runtime that makes it; "" for the server's default.
    """

    def __init__(self, socket: Path, name: str, logs: Path, handler: str = "") -> None:
        self.socket, self.name, self.logs, self.handler = socket, name, logs, handler

    def __repr__(self) -> str:
        return f"<pod {self.name}>"

    @property
    def config(self) -> dict[str, Any]:
        """Its PodSandboxConfig."""
        return {
            "metadata": {"name": self.name, "uid": self.name, "namespace": NAMESPACE},
            "hostname": self.name,
            "log_directory": str(self.logs),
            "linux": {"cgroup_parent": f"/{subtree()}/kubepods/{self.name}", "security_context": OWN_PIDS},
        }

    def run(self) -> Pod:
        """Make the sandbox, or leave the one that is ready; one that was stopped, or has another handler, is removed first.

        Shell:
            labkit cri RunPodSandbox '{"config": {...}}'

        Raises:
            CallError: the server could not, in its words.
        """
        homes()
        there = self._found()
        if there and there["state"] == "SANDBOX_READY" and there["runtime_handler"] == self.handler:
            return self
        if there:
            with trace.silent():
                self.delete()
        asked = {"config": self.config} | ({"runtime_handler": self.handler} if self.handler else {})
        with ledger.making(_KIND, name=self.name, socket=str(self.socket), config=json.dumps(self.config)) as entry:
            self._call("RunPodSandbox", asked, keep=_variable(self.name))
            entry.identity.update(id=self._id())
        return self

    @property
    def state(self) -> str:
        """SANDBOX_READY, or SANDBOX_NOTREADY once it was stopped."""
        with Client(self.socket) as client:
            return str(client.pod(self._id())["state"])

    @property
    def address(self) -> str:
        """Its address in the pods' network; "" where the sandbox was stopped."""
        with Client(self.socket) as client:
            return str(client.pod(self._id())["network"]["ip"])

    @property
    def processes(self) -> tuple[str, ...]:
        """The names of the processes in its network namespace, the eldest first, as the kernel has them.

        Shell:
            lsns --type net --output PID,COMMAND
        """
        with Client(self.socket) as client:
            pid = client.pod(self._id())["info"].get("pid") or 0
        inode = namespaces.of(pid).get("net") if pid else None
        return tuple(one.comm for one in namespaces.processes() if inode is not None and one.namespaces.get("net") == inode)

    def create(self, name: str, argv: Sequence[str], image: str = IMAGE) -> None:
        """Make a container, or leave the one that has not ended; an image that is not there is pulled.

        Shell:
            labkit cri CreateContainer '{"pod_sandbox_id": ..., "config": {...}, "sandbox_config": {...}}'
        """
        there = self._container(name)
        if there and there["state"] in ("CONTAINER_CREATED", "CONTAINER_RUNNING"):
            return
        if there:
            with trace.silent():
                self.remove(name)
        with Client(self.socket) as client:
            if client.image(image) is None:
                client.pull(image)
        config = {
            "metadata": {"name": name},
            "image": {"image": image},
            "command": list(argv),
            "log_path": f"{self.name}.{name}.log",
            "linux": {"security_context": OWN_PIDS},
        }
        asked = {"pod_sandbox_id": self._id(), "config": config, "sandbox_config": self.config}
        self._call("CreateContainer", asked, keep=_variable(self.name, name))

    def start(self, name: str) -> None:
        """Start a container that was made; one that runs goes on.

        Shell:
            labkit cri StartContainer '{"container_id": ...}'
        """
        there = self._must_be_there(name)
        if there["state"] != "CONTAINER_RUNNING":
            self._call("StartContainer", {"container_id": there["id"]})

    def container(self, name: str, argv: Sequence[str], image: str = IMAGE) -> First:
        """Make and start a container, or leave the one that runs, and return its first process."""
        self.create(name, argv, image)
        self.start(name)
        return self.first(name)

    def first(self, name: str) -> First:
        """Return the first process of a container that runs.

        Raises:
            LabError: there is no such container, or it does not run.
        """
        with Client(self.socket) as client:
            pid = int(client.container(self._must_be_there(name)["id"])["info"].get("pid") or 0)
        if not pid:
            raise LabError(f"the container {name} of the pod {self.name} does not run")
        return First(f"{self.name}/{name}", pid)

    def exec_sync(self, name: str, argv: Sequence[str]) -> str:
        """Run a program in a container to its end, and return what it wrote.

        Shell:
            labkit cri ExecSync '{"container_id": ..., "cmd": [...]}'

        Raises:
            CommandError: it failed, with what it wrote.
        """
        identifier = self._must_be_there(name)["id"]
        with Client(self.socket) as client, trace.silent():
            done = client.exec(identifier, argv)
        trace.record(self._typed("ExecSync", {"container_id": identifier, "cmd": list(argv)}))
        if done.status:
            raise CommandError(list(argv), done.status, done.stdout + done.stderr)
        return done.stdout

    def log(self, name: str) -> tuple[logs.Line, ...]:
        """Return what a container wrote, each line with its time and stream, from the file that the server keeps."""
        return logs.read(self.logs / f"{self.name}.{name}.log")

    def stats(self, name: str) -> dict[str, Any]:
        """Return what a container uses, as the server says: cpu, memory, its writable layer."""
        with Client(self.socket) as client:
            return client.stats(self._must_be_there(name)["id"])

    def stop(self, name: str) -> None:
        """End a container at once; one that has ended stays so.

        Shell:
            labkit cri StopContainer '{"container_id": ...}'
        """
        self._call("StopContainer", {"container_id": self._must_be_there(name)["id"]})

    def remove(self, name: str) -> None:
        """Remove a container; its log goes with the pod's directory.

        Shell:
            labkit cri RemoveContainer '{"container_id": ...}'
        """
        self._call("RemoveContainer", {"container_id": self._must_be_there(name)["id"]})

    def end(self) -> None:
        """End all that runs in the pod, and give back its network: its record stays.

        Shell:
            labkit cri StopPodSandbox '{"pod_sandbox_id": ...}'
        """
        self._call("StopPodSandbox", {"pod_sandbox_id": self._id()})

    def delete(self) -> None:
        """End and remove the pod with its containers.

        Shell:
            labkit cri StopPodSandbox '{"pod_sandbox_id": ...}'; labkit cri RemovePodSandbox '{"pod_sandbox_id": ...}'
        """
        if self.state == "SANDBOX_READY":
            self.end()
        self._call("RemovePodSandbox", {"pod_sandbox_id": self._id()})
        for entry in [one for one in ledger.live(ledger.owner()) if one.kind == _KIND and one.key["name"] == self.name]:
            ledger.gone(entry)

    def _found(self) -> dict[str, Any] | None:
        with Client(self.socket) as client:
            return find(client, self.name)

    def _id(self) -> str:
        there = self._found()
        if there is None:
            raise LabError(f"there is no pod {self.name}", remedy=f'lab.pod("{self.name}")')
        return str(there["id"])

    def _container(self, name: str) -> dict[str, Any] | None:
        pod = self._id()
        with Client(self.socket) as client:
            return next((one for one in containers(client, pod) if one["metadata"]["name"] == name), None)

    def _must_be_there(self, name: str) -> dict[str, Any]:
        there = self._container(name)
        if there is None:
            raise LabError(f"the pod {self.name} has no container {name}")
        return there

    def _call(self, call: str, fields: Fields, keep: str = "") -> None:
        """Make a call that changes something, and show it as it is typed; `keep` is the variable that gets the id."""
        line = self._typed(call, fields)
        with Client(self.socket) as client, trace.silent():
            client.call(call, **fields)
        trace.record(f"{keep}=$({line} | {_ID})" if keep else f"{line} > /dev/null")

    def _typed(self, call: str, fields: Fields) -> str:
        """Return the line for a call, each id that is known here as its variable."""
        line = shlex.join(["labkit", "cri", call, json.dumps(fields)])
        with Client(self.socket) as client:
            pod = find(client, self.name)
            known = {pod["id"]: _variable(self.name)} if pod else {}
            known |= {one["id"]: _variable(self.name, one["metadata"]["name"]) for one in containers(client, pod["id"])} if pod else {}
        for identifier, variable in known.items():
            line = line.replace(identifier, f"'${variable}'")
        return line


def find(client: Client, name: str) -> dict[str, Any] | None:
    """Return the pod of the labs that has this name, as the server lists it."""
    there = (one for one in client.pods() if one["metadata"]["namespace"] == NAMESPACE)
    return next((one for one in there if one["metadata"]["name"] == name), None)


def containers(client: Client, pod: str) -> list[dict[str, Any]]:
    """Return the containers of a pod, in whatever state."""
    return [one for one in client.containers() if one["pod_sandbox_id"] == pod]


@ledger.undoes(_KIND, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    """End and remove a pod; one that is still being made, for who was killed, is waited for.

    Raises:
        LabError: it is neither there nor gone in time.
    """
    if (socket := claim.answering(entry)) is None:
        return
    deadline = time.monotonic() + _PATIENCE
    with Client(socket) as client:
        while True:
            if there := find(client, entry.key["name"]):
                client.stop_pod(there["id"])
                client.remove_pod(there["id"])
            elif not is_reserved(client, json.loads(entry.key["config"])):
                return
            if time.monotonic() > deadline:
                raise LabError(f"{socket}: the pod {entry.key['name']} is neither there nor gone after {_PATIENCE:g} s")
            time.sleep(_TICK)


def _variable(*names: str) -> str:
    return re.sub(r"\W", "_", "_".join(names))
