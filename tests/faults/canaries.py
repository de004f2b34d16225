"""Things of somebody else, of every kind that a lab makes: whatever is cleaned, they must stay as they are."""

import os
import subprocess
from pathlib import Path

CGROUP = "canary"
NETNS = "canary"
LINK = "canary0"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Canary:
    """A cgroup with a process in it, a network namespace, a link with an address, a mount with a file; none by labkit.

    Args:
        folder: where its mount and its file lie.
    """

    def __init__(self, folder: Path) -> None:
        self.mount = folder
        self.cgroup = _freezer() / CGROUP
        self.cgroup.mkdir()
        self.process = subprocess.Popen(["sleep", "infinity"])
        (self.cgroup / "cgroup.procs").write_text(str(self.process.pid))
        _ip("netns", "add", NETNS)
        _ip("link", "add", LINK, "type", "veth", "peer", "name", f"{LINK}-end")
        _ip("address", "add", "203.0.113.1/32", "dev", LINK)
        subprocess.run(["mount", "-t", "tmpfs", "canary", str(folder)], check=True)
        (folder / "file").write_text("sings")
        self.then = self.now()

    def now(self) -> dict[str, object]:
        """Read what tells each of them from another one of the same name."""
        link = subprocess.run(["ip", "-o", "address", "show", LINK], capture_output=True, text=True, check=True).stdout
        return {
            "cgroup": self.cgroup.stat().st_ino,
            "process": (self.process.poll(), (self.cgroup / "cgroup.procs").read_text().split()),
            "netns": os.stat(f"/run/netns/{NETNS}").st_ino,
            "link": link,
            "mount": (self.mount.stat().st_dev, (self.mount / "file").read_text()),
        }

    def close(self) -> None:
        """Take them away again."""
        subprocess.run(["umount", str(self.mount)], check=True)
        _ip("link", "delete", LINK)
        _ip("netns", "delete", NETNS)
        self.process.kill()
        self.process.wait()
        self.cgroup.rmdir()


def _freezer() -> Path:
    """Return the root of a hierarchy in which a process can be put anywhere: the v1 freezer, or else v2."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        fstype, _, options = right.split()
        if fstype == "cgroup2" or (fstype == "cgroup" and "freezer" in options.split(",")):
            return Path(left.split()[4])
    raise LookupError("no cgroup hierarchy is mounted")
