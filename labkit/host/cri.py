"""What the doctor measures of the Container Runtime Interface: containerd's plugin for it, its network, and CRI-O."""

from __future__ import annotations

import os
import shutil

from labkit.errors import LabError
from labkit.host.findings import Finding, amber, green, red
from labkit.host.measures import Machine
from labkit.host.services import places
from labkit.kernel import commands


def crio_program(path: str | None = None) -> str | None:
    """Return CRI-O's binary: that of $LABKIT_CRIO, else the one in PATH; None where there is none."""
    named = os.environ.get("LABKIT_CRIO")
    return named if named and os.access(named, os.X_OK) else shutil.which("crio", path=path)


def cri(machine: Machine) -> Finding:
    """Tell whether containerd serves the CRI, and has a network for pods."""
    found = places()
    if not shutil.which("ctr", path=machine.path):
        return red("not asked", "no command ctr in PATH", "make lab")
    try:
        listed = commands.run(["ctr", "--address", str(found.containerd), "plugins", "list"], timeout=10).stdout.splitlines()
    except LabError as error:
        return red("not asked", error.message, "labkit up containerd")
    states = [words[-1] for line in listed if len(words := line.split()) == 4 and words[:2] == ["io.containerd.grpc.v1", "cri"]]
    if states != ["ok"]:
        return red("not served", f"containerd's plugin cri is {states[0] if states else 'not there'}", "remove cri from disabled_plugins")
    if not (found.configuration / "containerd.toml").exists():
        return green(f"containerd serves it at {found.containerd}")  # configured by somebody else, with a network or without
    networks = sorted((found.configuration / "cni").glob("*.conflist"))
    if not networks:
        return amber(f"served at {found.containerd}", f"no network for pods in {found.configuration / 'cni'}", "labkit up containerd")
    return green(f"containerd serves it at {found.containerd}; network {networks[0].name}")


def crio(machine: Machine) -> Finding:
    """Tell whether there is a CRI-O."""
    program = crio_program(machine.path)
    if program is None:
        cause = "no command crio in PATH, and LABKIT_CRIO names none"
        return amber("every step of the CRI runs against containerd", cause, "set LABKIT_CRIO to a binary of CRI-O")
    try:
        said = commands.run([program, "--version"], timeout=10).stdout.splitlines()
    except LabError as error:
        return red(program, error.message, "set LABKIT_CRIO to a binary of CRI-O")
    return green(f"{' '.join(said[:1])} ({program})")
