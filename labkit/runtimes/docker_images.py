"""Images of docker, taken out of it as a file. See: docker-save(1)."""

from __future__ import annotations

from pathlib import Path

from labkit.errors import LabError
from labkit.kernel import commands, rooted
from labkit.runtimes.docker import Docker, ask, words


def save(name: str, file: Path) -> Path:
    """Write an image to a file and return it.

    Shell:
        docker image save --output FILE NAME:TAG

    Args:
        name: of the image; without a tag it is `latest`, as everywhere but in `docker image save`, which takes all tags then.
        file: where to write; one that is there is written anew.

    Raises:
        LabError: docker does not answer, or has no such image.
    """
    if why := Docker().available():
        raise LabError("docker does not answer", cause=why)
    if not known(name):
        raise LabError(f"docker has no image {name}")
    tagged = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    commands.run(words("image", "save", "--output", str(file), tagged), env=rooted.ENVIRONMENT)
    return file


def known(name: str) -> bool:
    """Tell whether docker has an image of this name."""
    return commands.run(words("image", "inspect", "--format", "{{.Id}}", name), env=rooted.ENVIRONMENT, check=False).status == 0


def dangling() -> tuple[str, ...]:
    """Return the ids of the images that have lost their name to another one, and that no other image needs.

    Shell:
        docker image ls --quiet --filter=dangling=true
    """
    return tuple(ask("image", "ls", "--quiet", "--no-trunc", "--filter", "dangling=true").split())
