"""The images that the course names, each with the real one by its digest: data."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from labkit.errors import LabError

HUB = "registry-1.docker.io"
"""The host behind the names that begin with docker.io."""


@dataclass(frozen=True)
class Image:
    """One image of the course.

    Attributes:
        name: as a student types it.
        tag: its tag; `latest` where a student types none.
        repository: its name in a registry.
        digest: of the index of the real image, one state of the tag: what is copied is always this.
        release: what this digest is.
        recipe: the stand-in that takes its place where no registry can be reached (standins.py).
        upstream: the registry where the real one is.
    """

    name: str
    tag: str
    repository: str
    digest: str
    release: str
    recipe: str
    upstream: str = HUB

    @property
    def reference(self) -> str:
        """Its full name, as engines write it: `docker.io/library/alpine:latest`."""
        host = "docker.io" if self.upstream == HUB else self.upstream
        return f"{host}/{self.repository}:{self.tag}"


IMAGES = (
    Image(
        "alpine",
        "latest",
        "library/alpine",
        "sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1",
        "Alpine Linux 3.22.1",
        "alpine",
    ),
    Image(
        "busybox",
        "latest",
        "library/busybox",
        "sha256:d82f458899c9696cb26a7c02d5568f81c8c8223f8661bb2a7988b269c8b9051e",
        "BusyBox 1.37",
        "busybox",
    ),
    Image(
        "hello-world",
        "latest",
        "library/hello-world",
        "sha256:d58e752213a51785838f9eed2b7a498ffa1cb3aa7f946dda11af39286c3db9a9",
        "hello-world of 2024",
        "hello-world",
    ),
    Image(
        "debian",
        "latest",
        "library/debian",
        "sha256:d07d1b51c39f51188e60be9b64e6bf769fa94e187f092bc32b91305cfa34ba5a",
        "Debian 13.5",
        "debian",
    ),
    Image(
        "debian:buster-slim",
        "buster-slim",
        "library/debian",
        "sha256:bb3dc79fddbca7e8903248ab916bb775c96ec61014b3d02b4f06043b604726dc",
        "Debian 10, slim",
        "debian",
    ),
    Image(
        "nginx",
        "latest",
        "library/nginx",
        "sha256:6e23479198b998e5e25921dff8455837c7636a67111a04a635cf1bb363d199dc",
        "nginx 1.29.8 on Debian 13",
        "nginx",
    ),
    Image(
        "pause",
        "3.6",
        "pause",
        "sha256:3d380ca8864549e74af4b29c10f9cb0956236dfb01c40ca076fb6c37253234db",
        "the sandbox of a Kubernetes pod",
        "pause",
        "registry.k8s.io",
    ),
)


def find(name: str) -> Image:
    """Return the image of this name: `alpine`, `alpine:latest` and `docker.io/library/alpine:latest` are the same.

    Raises:
        LabError: the course has none of this name, with the one that was probably meant.
    """
    for image in IMAGES:
        if name in (image.name, f"{image.name}:{image.tag}", image.reference, f"{image.repository}:{image.tag}"):
            return image
    names = [image.name for image in IMAGES]
    near = difflib.get_close_matches(name, names, n=1)
    raise LabError(f"the course has no image {name!r}", remedy=f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}")
