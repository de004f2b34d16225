"""What becomes of a pod that has ended: marked as garbage first, removed after a grace period, whole, whoever was killed before.

`rkt rm` does for one pod at once what `rkt gc` does for all of them in time. See: rename(2), flock(2)
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress

from labkit.appc import stage1
from labkit.appc.networks import Networks
from labkit.appc.options import OptionError
from labkit.appc.pod import Pod, PodError, State
from labkit.appc.pods import Pods
from labkit.errors import LabError
from labkit.kernel import mounts

GRACE_PERIOD = 30 * 60.0
EXPIRE_PREPARED = 24 * 3600.0
"""Seconds that `rkt gc` waits, where it is not told otherwise, before it removes an exited pod, and one that was never run."""

NETWORKS = "networks"
"""The directory of rkt's in which the state of its networks lies, outside the pods that are attached to them."""

_EMBRYO = 60.0  # seconds after which nobody is about to lock an embryo any more
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")

Say = Callable[[str], object]


def seconds(text: str) -> float:
    """Read a time as `--grace-period` takes it: `30m0s`, `1h`, `0s`, `1.5m`.

    Raises:
        OptionError: it is none.
    """
    parts = _PART.findall(text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise OptionError(f'invalid duration "{text}": such as 30m0s')
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def duration(length: float) -> str:
    """Return a time in that form: `30m0s`, `24h0m0s`, `5s`."""
    minutes, left = divmod(length, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "m"), (left, "s")]
    first = next((index for index, (number, _) in enumerate(parts) if number), 2)
    return "".join(f"{number:g}{unit}" for number, unit in parts[first:])


def collect(
    pods: Pods, say: Say, tell: Say, *, grace: float = GRACE_PERIOD, expire: float = EXPIRE_PREPARED, mark_only: bool = False
) -> None:
    """Take away what nobody needs: exited pods in two passes, prepares that were aborted or never run at once.

    Args:
        pods: all of them.
        say: told what is marked, and what has to wait.
        tell: told what is removed.
        grace: seconds that an exited pod stays after it was marked.
        expire: seconds after which a pod that was prepared and never run goes.
        mark_only: do not remove anything.

    Raises:
        ExceptionGroup: of what could not be removed; everything else was, and it is tried again the next time.
    """
    errors: list[Exception] = []
    for pod in pods.all():
        try:
            with suppress(PodError):  # it is gone, or somebody works on it
                _mark(pod, say, expire)
                if not mark_only:
                    _sweep(pod, say, tell, grace)
        except Exception as error:  # one pod that resists must not keep the others
            errors.append(error)
    if errors:
        raise ExceptionGroup("some pods could not be removed", errors)


def _mark(pod: Pod, say: Say, expire: float) -> None:
    """Take a pod that has ended to the garbage."""
    reasons = {
        State.EXITED: (0.0, "pod"),
        State.ABORTED: (0.0, "failed prepare"),
        State.PREPARED: (expire, "expired prepared pod"),
        State.EMBRYO: (_EMBRYO, "embryo"),
    }
    age, what = reasons.get(pod.state, (0.0, ""))
    if what and _age(pod) >= age:
        with pod.locked():
            say(f'moving {what} "{pod.uuid}" to garbage')
            pod.move(_garbage_of(pod))


def _sweep(pod: Pod, say: Say, tell: Say, grace: float) -> None:
    """Remove a pod that was garbage for long enough."""
    if pod.state not in (State.GARBAGE, State.EXITED_GARBAGE):
        return
    if pod.state is State.EXITED_GARBAGE and _age(pod) < grace:
        say(f'pod "{pod.uuid}" not removed: still within grace period ({duration(grace)})')
        return
    with pod.locked():
        tell(f'Garbage collecting pod "{pod.uuid}"')
        delete(pod)


def remove(pod: Pod) -> None:
    """Remove a pod that does not run, now.

    Raises:
        PodError: it runs, or somebody works on it.
    """
    if pod.state is State.RUNNING:
        raise PodError(f'pod "{pod.uuid}" is currently running')
    with pod.locked():
        if pod.place not in ("garbage", "exited-garbage"):
            pod.move(_garbage_of(pod))
        delete(pod)


def delete(pod: Pod) -> None:
    """Remove what a pod has left outside its directory, and then the directory; this process holds the pod, which is garbage.

    Killed in between, this can be done again: the directory goes last.

    Raises:
        LabError: something is mounted in it.
        ExceptionGroup: of what could not be taken from its networks.
    """
    stage1.clear(pod, Networks(pod.data / NETWORKS))
    directory = pod.directory
    for mount in mounts.at_or_below(directory):
        raise LabError(f"{mounts.describe(mount)} is mounted in {directory}, which stays as it is", remedy=f"umount {mount.mountpoint}")
    shutil.rmtree(directory)


def _garbage_of(pod: Pod) -> str:
    return "exited-garbage" if pod.place == "run" else "garbage"


def _age(pod: Pod) -> float:
    """Return the seconds since a pod came to its place: by rename(2), which is a change of its directory's inode."""
    return time.time() - pod.directory.stat().st_ctime
