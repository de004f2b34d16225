"""The whole course, lab by lab: what is there, and what is still to come."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
"""Where the notebooks of this checkout lie."""

HOME = NOTEBOOKS / "start.ipynb"
"""The notebook of the course's home, which is no lab."""


@dataclass(frozen=True)
class CourseLab:
    """One lab of the course.

    Attributes:
        id: chapter and number, such as "2.1".
        title: what the lab is about, in our words.
        chapter: the folder of its chapter below `notebooks/`.
        file: its notebook, relative to `notebooks/`; None where it is not written yet.
    """

    id: str
    title: str
    chapter: str
    file: str | None = None

    def notebook(self, root: Path = NOTEBOOKS) -> Path | None:
        """Return the notebook's path below `root`, or None where there is none (yet)."""
        path = root / self.file if self.file else None
        return path if path is not None and path.is_file() else None


LABS = (
    CourseLab("2.1", "Control groups: freeze, limit and measure processes", "cgroups", "cgroups/2.1-cgroups.ipynb"),
    CourseLab("2.2", "Namespaces: what a process sees of the machine", "namespaces", "namespaces/2.2-namespaces.ipynb"),
    CourseLab("2.3", "Union mounts: many directories, one view", "unionfs", "unionfs/2.3-unionfs.ipynb"),
    CourseLab("3.1", "chroot: another root directory", "mechanisms", "mechanisms/3.1-chroot.ipynb"),
    CourseLab("3.2", "LXC: system containers", "mechanisms", "mechanisms/3.2-lxc.ipynb"),
    CourseLab("3.3", "systemd-nspawn: a container beside systemd", "mechanisms", "mechanisms/3.3-nspawn.ipynb"),
    CourseLab("4.1", "runc: the reference runtime set up", "runtimes", "runtimes/4.1-runc.ipynb"),
    CourseLab("4.2", "containerd: the daemon below the engines", "runtimes", "runtimes/4.2-containerd.ipynb"),
    CourseLab("4.3", "Docker Engine set up", "runtimes", "runtimes/4.3-docker.ipynb"),
    CourseLab("4.4", "CRI-O: a runtime for Kubernetes", "runtimes", "runtimes/4.4-crio.ipynb"),
    CourseLab("4.5", "rkt: pods without a daemon", "runtimes", "runtimes/4.5-rkt.ipynb"),
    CourseLab("4.6", "LXD: system containers by an API", "runtimes", "runtimes/4.6-lxd.ipynb"),
    CourseLab("4.7", "Podman: containers without a daemon", "runtimes", "runtimes/4.7-podman.ipynb"),
    CourseLab("5.1", "Images with Docker", "images", "images/5.1-docker-images.ipynb"),
    CourseLab("5.2", "Images with rkt", "images", "images/5.2-rkt-images.ipynb"),
    CourseLab("5.3", "Images with Podman", "images", "images/5.3-podman-images.ipynb"),
    CourseLab("6.1", "The life of a container with runc", "containers", "containers/6.1-runc.ipynb"),
    CourseLab("6.2", "The life of a container with Docker", "containers", "containers/6.2-docker.ipynb"),
    CourseLab("6.3", "The life of a pod with rkt", "containers", "containers/6.3-rkt.ipynb"),
    CourseLab("6.4", "The life of a container with Podman", "containers", "containers/6.4-podman.ipynb"),
    CourseLab("7.1", "An image from a running container", "building", "building/7.1-commit.ipynb"),
    CourseLab("7.2", "An image from a Dockerfile", "building", "building/7.2-dockerfile.ipynb"),
    CourseLab("8.1", "Networks of Docker", "networking", "networking/8.1-docker.ipynb"),
    CourseLab("8.2", "Networks of rkt", "networking", "networking/8.2-rkt.ipynb"),
    CourseLab("8.3", "Docker's network by hand, and what breaks it", "networking", "networking/8.3-by-hand.ipynb"),
    CourseLab("8.4", "The drivers of Docker's networks", "networking", "networking/8.4-drivers.ipynb"),
    CourseLab("8.5", "CNI: a network by a configuration and a program", "networking", "networking/8.5-cni.ipynb"),
    CourseLab("9.1", "Storage and volumes of Docker", "storage", "storage/9.1-docker-storage.ipynb"),
    CourseLab("9.2", "Storage and volumes of rkt", "storage", "storage/9.2-rkt-storage.ipynb"),
    CourseLab("9.3", "Storage drivers, and what copy-up costs", "storage", "storage/9.3-drivers.ipynb"),
)
"""Every lab of the course, in its order."""

CHAPTERS = {
    "2": "What the kernel gives",
    "3": "The first containers",
    "4": "Runtimes, set up",
    "5": "Images",
    "6": "The life of a container",
    "7": "Building an image",
    "8": "Networks",
    "9": "Storage",
}
"""The title of each chapter, by the number with which the ids of its labs begin."""


def chapters() -> dict[str, tuple[CourseLab, ...]]:
    """Return the labs of each chapter by its number, in the order of the course."""
    return {number: tuple(lab for lab in LABS if lab.id.split(".")[0] == number) for number in CHAPTERS}


def find(lab_id: str) -> CourseLab:
    """Return the lab with this id.

    Raises:
        LabError: there is no such lab; names those whose id looks like it.
    """
    for lab in LABS:
        if lab.id == lab_id:
            return lab
    known = [lab.id for lab in LABS]
    same_chapter = [one for one in known if one.split(".")[0] == str(lab_id).split(".")[0]]
    near = same_chapter or difflib.get_close_matches(str(lab_id), known, n=4, cutoff=0.5) or [known[0], "...", known[-1]]
    raise LabError(f"there is no lab {str(lab_id)!r}", remedy=f"open one of {', '.join(near)}; `labkit labs` lists all")


def module(lab_id: str) -> str:
    """Return the name of the module that has the checkpoints of a lab."""
    return f"labkit.course.lab_{lab_id.replace('.', '_')}"


def written(root: Path = NOTEBOOKS) -> tuple[CourseLab, ...]:
    """Return the labs whose notebook is there."""
    return tuple(lab for lab in LABS if lab.notebook(root) is not None)
