"""Pods of the tests: how one is configured, and what the first one leaves that is its engine's."""

import uuid
from pathlib import Path
from typing import Any

from labkit.runtimes.cri import Client

Fields = dict[str, Any]

LABEL = "labkit.test"
CGROUP = "labkit-cri-test"
OWN_PIDS = {"security_context": {"namespace_options": {"pid": "CONTAINER"}}}
"""A PID namespace for each container: one for the pod needs CAP_SYS_RESOURCE."""


def pod(label: dict[str, str], logs: Path, name: str = "pod") -> Fields:
    """Return the configuration of a pod sandbox."""
    return {
        "metadata": {"name": name, "uid": f"{label[LABEL]}-{name}", "namespace": "test"},
        "hostname": name,
        "log_directory": str(logs),
        "labels": label,
        "linux": {"cgroup_parent": f"/{CGROUP}", **OWN_PIDS},
    }


def remove_all(client: Client, label: dict[str, str]) -> None:
    """Remove the pods with a label, and their cgroup."""
    for one in client.pods(**label):
        client.stop_pod(one["id"])
        client.remove_pod(one["id"])
    remove_cgroups()


def remove_cgroups() -> None:
    """Remove the cgroup in which containers of the tests are, once they are gone."""
    parts = [part for base in ("", "*/") for below in ("/*", "") for part in Path("/sys/fs/cgroup").glob(f"{base}{CGROUP}{below}")]
    for directory in parts:
        if directory.is_dir():
            directory.rmdir()


def first(socket: Path, logs: Path) -> None:
    """Run a pod and remove it: with the first one come the bridge cni0 and the chains of its network, which are the engine's and stay."""
    label = {LABEL: uuid.uuid4().hex}
    with Client(socket) as client:
        try:
            client.run_pod(pod(label, logs, "first"))
        finally:
            remove_all(client, label)
