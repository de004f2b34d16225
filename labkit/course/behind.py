"""What is behind a thing that a live view shows: the file of the kernel, as it reads now, or the manual page."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress

from labkit.errors import LabError
from labkit.kernel import commands
from labkit.kernel.live import Frame

MOST = 20_000
"""Letters that are shown."""

_PAGE = re.compile(r"([\w.+-]+)\((\d)\)")
_VALUE_LINES = 6


def behind(ref: str, frame: Frame) -> tuple[str, str]:
    """Return a title and the text behind a reference of a live view.

    Args:
        ref: "man:cgroups(7)", "cgroup:PATH", "file:PATH", "dir:PATH" or "link:INODE:IFNAME", as frames.py writes them.
        frame: the one that is shown.
    """
    kind, _, rest = ref.partition(":")
    if kind == "man":
        return rest, _manual(rest)
    if kind == "cgroup":
        row = frame.cgroups.get(rest)
        lines = [line for _, directory in (row.directories if row else ()) for line in (*_values(directory), "")]
        return f"cgroup {rest}", "\n".join(lines) or "it is gone"
    if kind == "link":
        inode, _, ifname = rest.partition(":")
        network = frame.networks.get(inode)
        return f"{ifname} in {network.state.name if network else inode}", "\n".join(_link(frame, inode, ifname)) or "it is gone"
    if kind in ("file", "dir") and rest.startswith("/"):
        return rest, _file(rest)
    return ref, "nothing is behind it"


def _manual(page: str) -> str:
    found = _PAGE.fullmatch(page)
    if found is None:
        return f"{page} is no manual page"
    try:
        environment = {**os.environ, "MANWIDTH": "78", "LC_ALL": "C.UTF-8"}
        done = commands.run(["man", "-P", "cat", found[2], found[1]], env=environment, check=False)
    except LabError:
        return f"man is not installed here; read {page} at https://man7.org/linux/man-pages"
    return re.sub(r".\x08", "", done.stdout)[:MOST] or f"{page} is not installed here (Debian package manpages)"


def _values(directory: str) -> Iterator[str]:
    """Yield the interface files of a cgroup with what they say."""
    yield f"$ cd {directory}; grep -H . *"
    with suppress(OSError):
        for name in sorted(os.listdir(directory)):
            text = _read(f"{directory}/{name}")
            lines = (text or "").splitlines()
            yield from (f"{name}: {line}" for line in lines[:_VALUE_LINES])
            if len(lines) > _VALUE_LINES:
                yield f"{name}: …"


def _link(frame: Frame, inode: str, ifname: str) -> Iterator[str]:
    row = frame.networks.get(inode)
    for link in row.state.links if row else ():
        if link.ifname == ifname:
            prefix = "" if row is None or row.state.name == "host" else f"ip netns exec {row.state.name} "
            yield f"$ {prefix}ip -s -d link show {ifname}"
            yield from (f"{name}: {value}" for name, value in vars(link).items() if value not in ("", (), None))


def _file(path: str) -> str:
    if os.path.isdir(path):
        with suppress(OSError):
            return f"$ ls {path}\n" + "\n".join(sorted(os.listdir(path)))[:MOST]
    text = _read(path)
    return f"$ cat {path}\n{text}" if text is not None else f"{path} is gone, or no text"


def _read(path: str) -> str | None:
    """Return the text of a regular file, or None: no pipe is waited for, and no device is read."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            data = os.read(descriptor, MOST)
        finally:
            os.close(descriptor)
        return None if b"\0" in data else data.decode(errors="replace")
    return None
