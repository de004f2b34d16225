"""The processes in a cgroup: who they are, frozen and thawed, killed, each waited for until the kernel says so.

Works on directories of cgroupfs, v1 and v2; the ledger's undo needs it as much as a Cgroup does. See: cgroups(7).
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from labkit.errors import LabError, SyscallError

_GONE = (errno.ENOENT, errno.ENODEV, errno.ESRCH)
_TICK = 0.002


def read(path: Path | str) -> str:
    """Return what an interface file says, without its last newline; "" where the file is not, or no longer, there.

    Raises:
        SyscallError: the kernel refuses to read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _GONE:
            return ""
        raise SyscallError("open", error.errno or 0, [f'"{path}"', "O_RDONLY"], see="cgroups(7)") from error
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode(errors="surrogateescape").rstrip("\n")
    except OSError as error:
        if error.errno in _GONE:
            return ""
        raise SyscallError("read", error.errno or 0, [f'"{path}"'], see="cgroups(7)") from error
    finally:
        os.close(descriptor)


def write(path: Path | str, value: str) -> None:
    """Hand a value to an interface file in a single system call, as the kernel wants it.

    Raises:
        SyscallError: with the kernel's errno.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SyscallError("open", error.errno or 0, [f'"{path}"', "O_WRONLY"], see="cgroups(7)") from error
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        raise SyscallError("write", error.errno or 0, [f'"{path}"', f'"{value}"'], see="cgroups(7)") from error
    finally:
        os.close(descriptor)


def below(directory: Path) -> list[Path]:
    """Return the directory and every cgroup below it, children before their parents."""
    return [Path(path) for path, _, _ in os.walk(directory, topdown=False)]


def pids(directory: Path, *, deep: bool = False) -> list[int]:
    """Return the processes of a cgroup, ascending; with `deep` those of its descendants too.

    A process of a PID namespace that cannot be seen from here counts as 0.
    """
    if deep:
        return sorted({pid for part in below(directory) for pid in pids(part)})
    try:
        words = read(directory / "cgroup.procs").split()
    except SyscallError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        words = []  # a threaded cgroup: its processes are those of the domain above it
    return sorted({int(word) for word in words})


def describe(members: Iterable[int], proc: Path = Path("/proc"), most: int = 5) -> str:
    """Name processes for an error: "bash (pid 12), sleep (pid 13)"."""
    everyone = sorted(members)
    named = [f"{read(proc / str(pid) / 'comm') or '?'} (pid {pid})" if pid else "one of another pid namespace" for pid in everyone[:most]]
    return ", ".join(named) + (f" and {len(everyone) - most} more" if len(everyone) > most else "")


def memberships(pid: int | str, proc: Path = Path("/proc")) -> dict[str, str]:
    """Return hierarchy ("" for v2, else the v1 controllers) to the cgroup that a process is in.

    Shell: cat /proc/PID/cgroup
    """
    lines = [line.split(":", 2) for line in read(proc / str(pid) / "cgroup").splitlines()]
    return {controllers: path for _, controllers, path in lines}


def stat_fields(pid: int | str, proc: Path = Path("/proc")) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on (index 0); empty where there is no such process."""
    return read(proc / str(pid) / "stat").rpartition(")")[2].split()


def is_or_begot(pid: int) -> set[int]:
    """Return a process, its parent, the parent's parent and so on: those who must not be frozen or killed by their own doing."""
    line = set()
    while pid > 0 and pid not in line:
        line.add(pid)
        fields = stat_fields(pid)
        pid = int(fields[1]) if fields else 0
    return line


def wait_for(directory: Path, done: Callable[[], bool], timeout: float) -> bool:
    """Wait until `done()`, woken by the kernel's notice on cgroup.events in v2, looking again and again in v1.

    Args:
        directory: the cgroup.
        done: reads the kernel.
        timeout: seconds.

    Returns:
        Whether it came true in time.
    """
    deadline = time.monotonic() + timeout
    try:
        events = os.open(directory / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        events = -1
    try:
        while not done():
            if time.monotonic() > deadline:
                return False
            _wait_for_notice(events)
        return True
    finally:
        if events >= 0:
            os.close(events)


def _wait_for_notice(events: int) -> None:
    poller = select.poll()
    if events >= 0:
        with suppress(OSError):
            os.pread(events, 256, 0)  # the notice is about what changed since this read
            poller.register(events, select.POLLPRI)
    poller.poll(_TICK * 1000)  # the kernel holds notices back for up to 10 ms: look sooner than that


def is_frozen(directory: Path) -> bool:
    """Whether every process of the cgroup is stopped by the freezer, as the kernel says now."""
    if (directory / "freezer.state").exists():
        return read(directory / "freezer.state") == "FROZEN"
    return "frozen 1" in read(directory / "cgroup.events").splitlines()


def freezer_file(directory: Path, frozen: bool) -> tuple[Path, str]:
    """Return the file of v1 or v2 that freezes or thaws, and what to write there."""
    if (directory / "freezer.state").exists():
        return directory / "freezer.state", "FROZEN" if frozen else "THAWED"
    return directory / "cgroup.freeze", str(int(frozen))


def wait_frozen(directory: Path, frozen: bool, timeout: float) -> None:
    """Wait until the kernel says that the cgroup is frozen, or thawed.

    Raises:
        LabError: it did not come true within `timeout` seconds; the cause says what was measured.
    """
    if not wait_for(directory, lambda: is_frozen(directory) == frozen, timeout):
        why = _unfrozen(directory) if frozen else _still_frozen(directory)
        raise LabError(f"{directory} is not {'frozen' if frozen else 'thawed'} after {timeout:g} s", cause=why)


def _unfrozen(directory: Path) -> str | None:
    running = {pid: fields[0] for pid in pids(directory, deep=True) if (fields := stat_fields(pid))}
    uninterruptible = [pid for pid, state in running.items() if state == "D"]
    return f"in uninterruptible sleep: {describe(uninterruptible)}" if uninterruptible else None


def _still_frozen(directory: Path) -> str | None:
    for ancestor in directory.parents:
        if read(ancestor / "cgroup.freeze") == "1" or read(ancestor / "freezer.self_freezing") == "1":
            return f"{ancestor}, above it, is frozen"
    return None


def thaw_all(directory: Path) -> None:
    """Thaw a cgroup of the v1 freezer and everything below it, without waiting: a frozen process there does not die when killed."""
    for part in reversed(below(directory)):
        with suppress(SyscallError):
            if read(part / "freezer.self_freezing") == "1":
                write(part / "freezer.state", "THAWED")


def kill(directories: Sequence[Path], timeout: float, spared: Iterable[int] = ()) -> None:
    """Kill every process in these cgroups and below them, and wait until they are gone.

    In v2 cgroup.kill takes all at once. In v1 they are signalled until none is left; what the v1 freezer holds is
    thawed, since it would not die.

    Args:
        directories: cgroups, of any hierarchy.
        timeout: seconds.
        spared: processes that stay.

    Raises:
        LabError: some are still there after `timeout` seconds, with what holds them where that was measured.
    """
    deadline = time.monotonic() + timeout
    kept = set(spared)
    while members := {pid for directory in directories for pid in pids(directory, deep=True)} - kept:
        if time.monotonic() > deadline:
            raise LabError(f"still there {timeout:g} s after SIGKILL: {describe(members)}", cause=_held(members))
        if not kept:
            _kill_at_once(directories)
        handles = [handle for pid in members if pid and (handle := _signal(pid)) is not None]
        for directory in directories:
            if (directory / "freezer.state").exists():
                thaw_all(directory)
        _wait_for_end(handles, min(deadline, time.monotonic() + 0.2))


def end(directory: Path, timeout: float) -> None:
    """Kill every process in a cgroup and below it, and remove it; who enters meanwhile, being started, is killed as well.

    Raises:
        LabError: some are still there after `timeout` seconds.
        SyscallError: it could not be removed.
    """
    deadline = time.monotonic() + timeout
    while directory.is_dir():
        kill([directory], max(0.1, deadline - time.monotonic()))
        try:
            remove(directory, timeout)
        except SyscallError:
            if time.monotonic() > deadline or not pids(directory, deep=True):
                raise


def wait_uncounted(directories: Iterable[Path], timeout: float) -> bool:
    """Wait until nobody counts in pids.current any more: who was killed does until its parent has waited for it.

    Args:
        directories: cgroups; those without the pids controller have nothing to wait for.
        timeout: seconds.

    Returns:
        Whether it came true in time; a parent that waits for nobody may stand outside.
    """
    deadline = time.monotonic() + timeout
    counters = [directory / "pids.current" for directory in directories]
    while any(read(counter) not in ("", "0") for counter in counters):
        if time.monotonic() > deadline:
            return False
        time.sleep(_TICK)  # the kernel gives no notice of this counter
    return True


def _kill_at_once(directories: Iterable[Path]) -> None:
    for directory in directories:
        with suppress(SyscallError):
            if (directory / "cgroup.kill").exists():
                write(directory / "cgroup.kill", "1")


def _signal(pid: int) -> int | None:
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    with suppress(OSError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    return handle


def _wait_for_end(handles: list[int], deadline: float) -> None:
    poller = select.poll()
    for handle in handles:
        poller.register(handle, select.POLLIN)
    left = set(handles)
    try:
        while left and (remaining := deadline - time.monotonic()) > 0:
            for handle, _ in poller.poll(remaining * 1000):
                poller.unregister(handle)
                left.discard(handle)
        if not handles:
            time.sleep(_TICK)  # all ended between the two reads: look again
    finally:
        for handle in handles:
            os.close(handle)


def _held(members: Iterable[int]) -> str | None:
    reasons = []
    for pid in sorted(members):
        freezers = [f"{name}:{path}" for name, path in memberships(pid).items() if "freezer" in name.split(",") and path != "/"]
        state = (stat_fields(pid) or ["gone"])[0]
        if state == "D":
            reasons.append(f"pid {pid} is in uninterruptible sleep" + (f", in {freezers[0]}" if freezers else ""))
    return "; ".join(reasons[:3]) or None


def remove(directory: Path, timeout: float) -> None:
    """Remove a cgroup without processes, children first; a cgroup whose last process just ended may take a moment.

    Raises:
        SyscallError: EBUSY with who is in it.
    """
    deadline = time.monotonic() + timeout
    for part in below(directory):
        while True:
            try:
                os.rmdir(part)
                break
            except FileNotFoundError:
                break
            except OSError as error:
                members = pids(part, deep=True)
                if error.errno == errno.EBUSY and not members and time.monotonic() < deadline:
                    time.sleep(_TICK)  # it is empty, and the kernel has yet to let go of its last process
                    continue
                cause = f"in it: {describe(members)}" if members else None
                raise SyscallError("rmdir", error.errno or 0, [f'"{part}"'], cause=cause) from error
