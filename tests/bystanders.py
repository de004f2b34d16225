"""A container of somebody else with image, volume and network, in the machine's docker and podman: whatever a lab does, they stay."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

ENGINES = {"docker": ["docker"], "podman": ["podman", "--cgroup-manager=cgroupfs"]}
NAME = "bystander"
PROGRAM = ["/bin/busybox", "sleep", "2147483647"]


class Bystander:
    """What one engine keeps for somebody else.

    Args:
        engine: of `ENGINES`.
    """

    def __init__(self, engine: str) -> None:
        self.engine = ENGINES[engine]
        packed = subprocess.run(["tar", "--create", "--directory=/", "bin/busybox"], check=True, capture_output=True).stdout
        subprocess.run([*self.engine, "image", "import", "-", NAME], input=packed, check=True, capture_output=True)
        self._ask("volume", "create", NAME)
        if engine == "docker":  # podman keeps its networks in /etc
            self._ask("network", "create", NAME)
        self._ask("run", "--detach", "--name", NAME, "--network", "none", "--volume", f"{NAME}:/data", NAME, *PROGRAM)
        self.then = self.now()

    def now(self) -> dict[str, str]:
        """Read what tells each of them from another one of the same name."""
        process = json.loads(self._ask("container", "inspect", NAME))[0]
        return {
            "container": f"{process['Id']} {process['State']['Pid']} {process['State']['StartedAt']}",
            "image": json.loads(self._ask("image", "inspect", NAME))[0]["Id"],
            "volume": self._ask("volume", "inspect", NAME),
            "networks": self._ask("network", "ls", "--no-trunc"),
        }

    def close(self) -> None:
        """Take them away again."""
        for words in (("rm", "--force"), ("volume", "rm"), ("network", "rm"), ("image", "rm")):
            subprocess.run([*self.engine, *words, NAME], check=False, capture_output=True)

    def _ask(self, *words: str) -> str:
        return subprocess.run([*self.engine, *words], check=True, capture_output=True, text=True).stdout


@contextmanager
def bystanders() -> Iterator[list[Bystander]]:
    """Give one of each engine for the block."""
    there: list[Bystander] = []
    try:
        for engine in ENGINES:
            there.append(Bystander(engine))
        yield there
    finally:
        for one in there:
            one.close()
