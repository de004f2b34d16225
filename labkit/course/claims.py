"""Names that the shell lines of a lab will make: the lab's own from its opening on, whoever types the line.

`%%lab` cells and a student's terminal make things without asking the ledger. So the names that a lab's text uses are
written into it when the lab is opened; what carries such a name already, and is not ours, is refused then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType

from labkit.cni import claims as cni
from labkit.errors import LabError
from labkit.images import repositories
from labkit.kernel import network, shared
from labkit.kernel.network import NetworkNamespace
from labkit.runtimes import (
    by_hand,
    containerd_namespace,
    docker_claims,
    docker_engine,
    docker_netns,
    docker_storage,
    lifecycle,
    lxc,
    lxd_claims,
)
from labkit.runtimes.cri import claim as pods

Claim = tuple[str, str]
"""(kind, name): "netns" or "link"; a container by the tool that makes it, "lxc" (as root, under /var/lib/lxc), "lxd", "docker" or
"runc" (in the lab's cgroups), "runc by hand" (with a state of the lab's own, too); "containerd", a namespace of containerd; "pods", a
namespace of pods; "image" of the CRI, "docker image"; "docker netns", a network namespace in which the lab's dockerd stands; "docker
engine", one more dockerd, in a network namespace of this name; "storage driver", such an engine whose data has a disk of its own;
"repository" of the registry with accounts, without its host; "shared mount", a directory in the lab's that is a shared mount; "cni", a
network whose plugins are called by hand."""

_CLAIM: dict[str, Callable[[str], object]] = {
    "netns": NetworkNamespace.claim,
    "link": network.claim_link,
    "shared mount": shared.claim,
    "lxc": lxc.claim,
    "lxd": lxd_claims.claim,
    "docker": docker_claims.claim,
    "docker image": docker_claims.claim_image,
    "docker engine": docker_engine.claim,
    "docker netns": docker_netns.claim,
    "storage driver": docker_storage.claim,
    "runc": lifecycle.homes,
    "runc by hand": by_hand.claim,
    "containerd": containerd_namespace.claim,
    "pods": pods.claim,
    "image": pods.claim_image,
    "repository": repositories.claim,
    "cni": cni.network,
}


def of(module: ModuleType) -> tuple[Claim, ...]:
    """Return the claims that a lab's module declares.

    Raises:
        LabError: of a kind that cannot be claimed.
    """
    claims: tuple[Claim, ...] = tuple(getattr(module, "CLAIMS", ()))
    for kind, name in claims:
        if kind not in _CLAIM:
            raise LabError(f"{module.__name__}: {kind} {name} cannot be claimed", remedy=f"kinds are {', '.join(_CLAIM)}")
    return claims


def take(claims: Iterable[Claim]) -> None:
    """Write the names into the ledger of the lab that is open.

    Raises:
        LabError: one is taken by something that the lab did not make.
    """
    for kind, name in claims:
        _CLAIM[kind](name)
