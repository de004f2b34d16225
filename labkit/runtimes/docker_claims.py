"""Names that a person will give containers of Docker by hand, and images that will be pulled for them: the lab's from its opening on.

See: docker-rm(1), docker-rmi(1)
"""

from __future__ import annotations

import re
import shutil

from labkit import ledger
from labkit.errors import LabError
from labkit.kernel import commands, rooted
from labkit.runtimes.docker import Docker, ask, words

_CONTAINER = "docker claim"
_IMAGE = "docker image claim"
_PATIENCE = 20.0


def claim(name: str) -> None:
    """Take a name for this lab that a person will give a container by hand, as the course has it: the undo removes it.

    Raises:
        LabError: there is such a container already, and no lab made it.
    """
    if _is_claimed(_CONTAINER, name):
        return
    if _called(name):
        raise LabError(f"the container docker:{name} is there already and was not made by this lab", remedy=f"docker rm --force {name}")
    ledger.intend(_CONTAINER, name=name)


def claim_image(name: str) -> None:
    """Take an image for this lab that will be pulled: the undo removes it. One that is there already is somebody else's and stays."""
    if not _is_claimed(_IMAGE, name) and not Docker().available() and not ask("images", "--quiet", name):
        ledger.intend(_IMAGE, name=name)


def _is_claimed(kind: str, name: str) -> bool:
    return any(entry.kind == kind and entry.key["name"] == name for entry in ledger.live(ledger.owner()))


def _called(name: str) -> list[str]:
    """Return the containers of this name: one, or none, also where no daemon is."""
    if Docker().available():
        return []
    return ask("ps", "--all", "--quiet", "--filter", f"name=^/?{re.escape(name)}$").split()


@ledger.undoes(_CONTAINER, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    """Remove the container of this name, and its anonymous volumes.

    Raises:
        CommandError: it does not remove it.
    """
    name = entry.key["name"]
    if shutil.which("docker") and _called(name):
        commands.run(words("rm", "--force", "--volumes", name), env=rooted.ENVIRONMENT, timeout=_PATIENCE)


@ledger.undoes(_IMAGE, survives_reboot=True)
def _undo_image(entry: ledger.Entry) -> None:
    """Remove the image, unless a container that is not the lab's has come to need it: without --force docker refuses then."""
    if shutil.which("docker") and not Docker().available():
        commands.run(words("rmi", entry.key["name"]), env=rooted.ENVIRONMENT, check=False, timeout=_PATIENCE)
