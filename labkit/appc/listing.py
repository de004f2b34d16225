"""What `rkt list` and `rkt status` say of pods: read from their directories, nothing of it remembered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from labkit.appc import net_info
from labkit.appc.columns import ago, in_full, tabbed
from labkit.appc.net_info import NetInfo
from labkit.appc.pod import Pod, PodError, State
from labkit.appc.pod_manifest import RuntimeApp
from labkit.appc.types import ManifestError

_HEAD = ("UUID", "APP", "IMAGE NAME", "STATE", "CREATED", "STARTED", "NETWORKS")
_FULL = ("UUID", "APP", "IMAGE NAME", "IMAGE ID", "STATE", "CREATED", "STARTED", "NETWORKS")
_SHORT_ID = len("sha512-") + 12
_UNFINISHED = (State.EMBRYO, State.PREPARING, State.ABORTED)
_NEVER_RUN = (*_UNFINISHED, State.PREPARED, State.GARBAGE)


@dataclass(frozen=True)
class PodView:
    """One pod at one instant.

    Attributes:
        uuid: of the pod.
        state: what its place and its lock say.
        apps: of its manifest; none before it was prepared.
        created: seconds since 1970, or None.
        started: when its process 1 was started, or None.
        networks: that it is attached to, or was.
        pid: of its process 1 as the host numbers it, or None.
        exit_codes: of the apps that have ended, by their names.
    """

    uuid: str
    state: State
    apps: tuple[RuntimeApp, ...]
    created: float | None
    started: float | None
    networks: tuple[NetInfo, ...]
    pid: int | None
    exit_codes: dict[str, int]

    @classmethod
    def of(cls, pod: Pod) -> PodView:
        """Read a pod.

        Raises:
            PodError: it is gone.
        """
        state = pod.state
        unfinished = state in _UNFINISHED
        return cls(
            pod.uuid,
            state,
            () if unfinished else _apps(pod),
            None if unfinished else pod.since("pod-created"),
            pod.since("pid"),
            () if unfinished else net_info.load(pod.directory),
            pod.pid,
            pod.exit_codes,
        )

    @property
    def exited(self) -> bool:
        """Whether it ran, and runs no longer."""
        return self.state in (State.EXITED, State.EXITED_GARBAGE, State.DELETING)

    def record(self) -> dict[str, Any]:
        """Return it as `--format=json` has it."""
        return {
            "name": self.uuid,
            "state": self.state.value,
            "networks": [one.record() for one in self.networks] or None,
            "app_names": [app.name for app in self.apps],
            "apps": [self._app_record(app) for app in self.apps],
            **({"created_at": int(self.created * 1e9)} if self.created else {}),
            **({"started_at": int(self.started * 1e9)} if self.started else {}),
            **({"pid": self.pid} if self.pid else {}),
        }

    def _app_record(self, app: RuntimeApp) -> dict[str, Any]:
        code = self.exit_codes.get(app.name)
        ended = {} if code is None else {"exit_code": code}
        return {"name": app.name, "image_name": image_name(app), "image_id": str(app.image_id), **ended}


def _apps(pod: Pod) -> tuple[RuntimeApp, ...]:
    try:
        return pod.manifest.apps
    except (FileNotFoundError, ManifestError):
        return ()  # it is being removed, or its removal was interrupted


def views(pods: Iterable[Pod]) -> tuple[PodView, ...]:
    """Read pods; one that goes meanwhile is left out."""
    found = []
    for pod in pods:
        try:
            found.append(PodView.of(pod))
        except (PodError, FileNotFoundError):
            continue
    return tuple(found)


def image_name(app: RuntimeApp) -> str:
    """Return the name of an app's image with its version, as rkt lists it."""
    version = dict(app.image_labels).get("version")
    return f"{app.image_name}:{version}" if version else app.image_name


def listed(pods: Iterable[PodView], *, full: bool = False, legend: bool = True, now: float | None = None) -> str:
    """Return the table of `rkt list`: a line a pod, and one more for each further app.

    Args:
        pods: in their order.
        full: whole UUIDs, the ids of images, and times in place of ages.
        legend: begin with the names of the columns.
        now: seconds since 1970; the clock's if not given.
    """
    rows = [row for pod in pods for row in _rows(pod, now, full=full)]
    return tabbed([*([_FULL if full else _HEAD] if legend else []), *rows])


def _rows(pod: PodView, now: float | None, *, full: bool) -> list[tuple[str, ...]]:
    names = [(app.name, image_name(app), str(app.image_id)[:_SHORT_ID]) for app in pod.apps] or [("-", "-", "-")]
    images = [(name, image, key) if full else (name, image) for name, image, key in names]
    created = in_full(pod.created) if full else ago(pod.created, now)
    started = "" if pod.started is None else in_full(pod.started) if full else ago(pod.started, now)
    first = (pod.uuid if full else pod.uuid[:8], *images[0], pod.state.value, created, started, net_info.shown(pod.networks))
    return [first, *(("", *image, "", "", "", "") for image in images[1:])]


def status(pod: PodView) -> str:
    """Return the lines of `rkt status`; of a pod that never ran only its state and its age."""
    lines = [f"state={pod.state.value}"]
    if pod.created is not None:
        lines.append(f"created={in_full(pod.created)}")
    if pod.state in _NEVER_RUN:
        return "\n".join(lines)
    if pod.started is not None:
        lines.append(f"started={in_full(pod.started)}")
    if pod.networks or pod.state is State.RUNNING:
        lines.append(f"networks={net_info.shown(pod.networks)}")
    lines += [f"pid={pod.pid or -1}", f"exited={'true' if pod.exited else 'false'}"]
    return "\n".join([*lines, *(f"app-{name}={code}" for name, code in sorted(pod.exit_codes.items()))])
