"""Pods that a person will run by hand in a lab: whatever is in the lab's directory of rkt is the lab's, from its opening on.

`rkt` is a process of its own and knows of no lab. So the lab's one entry in the ledger stands for all that the pods in its
directory make: processes, cgroups, networks, rules of NAT. It is undone as a person would: stop, and then `rkt gc`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from labkit import ledger
from labkit.appc import garbage, stage1
from labkit.appc.pod import Pod, PodError, State
from labkit.appc.pods import Pods
from labkit.errors import LabError

_KIND = "rkt claim"
_PATIENCE, _TICK = 20.0, 0.05


def claim(data: Path) -> None:
    """Take a directory of rkt's for this lab: the undo ends and removes every pod in it.

    Args:
        data: the directory, as `--dir` names it; it need not be there.

    Raises:
        LabError: there are pods in it already that no lab has run.
    """
    if any(entry.kind == _KIND and entry.key["data"] == str(data) for entry in ledger.live(ledger.owner())):
        return
    if Pods(data).all():
        raise LabError(f"there are pods in {data} already, and this lab did not run them", remedy=f"rkt gc --dir={data} --grace-period=0s")
    ledger.intend(_KIND, data=str(data))


def end_all(data: Path) -> None:
    """Kill the pods of a directory that run, and remove all of them.

    Raises:
        LabError: a pod does not end.
        ExceptionGroup: of what could not be removed.
    """
    pods = Pods(data)
    for pod in pods.all():
        with suppress(PodError):  # it has gone by itself
            _end(pod)
    garbage.collect(pods, str, str, grace=0, expire=0)


def _end(pod: Pod) -> None:
    deadline = time.monotonic() + _PATIENCE
    while pod.state in (State.RUNNING, State.PREPARING):
        if time.monotonic() > deadline:
            raise LabError(f'pod "{pod.uuid}" does not end', cause=f"it was killed, and is {pod.state} after {_PATIENCE:g} s")
        if pod.state is State.RUNNING:
            with suppress(LabError):  # not started yet, or ended just now
                stage1.stop(pod, force=True)
        time.sleep(_TICK)


@ledger.undoes(_KIND, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    end_all(Path(entry.key["data"]))
