"""The rows of pods: `rkt run` beside `docker run --rm` and `podman run --rm`, of one root file system, from command to exit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.measure import Contestant, Result, Row, alternate, command, said

IMAGE = "labkit-bench"
"""What the image is called in each store."""

NETWORKS = {"a network behind NAT, as by default": "", "no network": "none"}
"""What is told of a network, and its name; each of the three has a default, and `none`."""

_ROUNDS = 12


def pods(room: Path, _limits: Path) -> list[Result]:
    """Compare the runs of `true`, by every engine that works here."""
    from labkit.host.services.mirrors import containers_conf
    from labkit.runtimes import find, rootfs

    (room / "containers.conf").write_text(containers_conf())
    os.environ["CONTAINERS_CONF"] = str(room / "containers.conf")  # with it podman sets no limit that this machine refuses
    root = rootfs.unpack(room / "root", "busybox")
    tar = room / "root.tar"
    said("tar", "--create", "--file", str(tar), "--directory", str(root), ".")
    engines = {"docker": ("docker",), "podman": ("podman", "--root", str(room / "podman"), "--runroot", str(room / "podman.run"))}
    with ExitStack() as clear:
        rkt = clear.enter_context(_rkt(room, root))
        there = {}
        for name, words in engines.items():
            if absent := find(name).available():
                print(f"(without {name}: {absent})", end=" ")
                continue
            there[f"{name} run --rm"] = clear.enter_context(_engine(words, tar))
        return [_row(what, network, rkt, there) for what, network in NETWORKS.items()]


def _row(what: str, network: str, rkt: Path, engines: dict[str, tuple[str, ...]]) -> Result:
    """Let the engines take turns; what rkt keeps of a pod until `rkt gc` goes outside of the time, as the others' `--rm` goes inside."""
    wanted = [f"--net={network}"] if network else []
    contestants = {"labkit": _collected(rkt, command(str(rkt), "run", *wanted, IMAGE))}
    wanted = [f"--network={network}"] if network else []
    contestants |= {name: command(*words, "run", "--rm", *wanted, IMAGE, "/bin/true") for name, words in engines.items()}
    return alternate(Row(f"`rkt run` of a pod whose app is `true`, to its exit, {what}", None, "", _ROUNDS), contestants)


def _collected(rkt: Path, contestant: Contestant) -> Contestant:
    def once() -> float:
        seconds = contestant()
        said(str(rkt), "gc", "--grace-period=0s")
        return seconds

    return once


@contextmanager
def _rkt(room: Path, root: Path) -> Iterator[Path]:
    """Yield the program `rkt` with directories of its own and the image in its store."""
    from labkit import ledger
    from labkit.appc import aci, claims, door
    from labkit.appc.app import App
    from labkit.appc.command import LAB
    from labkit.appc.image_manifest import ImageManifest

    (room / "bin").mkdir()
    program = door.write(room / "bin", room / "rkt", room / "rkt.d", {LAB: ledger.owner(), "LABKIT_STATE": os.environ["LABKIT_STATE"]})
    claims.claim(room / "rkt")
    image = room / f"{IMAGE}.aci"
    aci.build(ImageManifest(IMAGE, app=App(("/bin/true",), "0", "0")), root, image)
    said(str(program), "fetch", "--insecure-options=image", str(image))
    yield program
    claims.end_all(room / "rkt")


@contextmanager
def _engine(words: tuple[str, ...], tar: Path) -> Iterator[tuple[str, ...]]:
    """Yield the command of an engine that has the image, and what was made for it, which goes at the end."""
    said(*words, "image", "import", str(tar), IMAGE)
    yield words
    said(*words, "image", "rm", "--force", IMAGE)
    if "--root" in words:
        said(*words, "system", "reset", "--force")
        for name in ("--root", "--runroot"):
            shutil.rmtree(words[words.index(name) + 1], ignore_errors=True)
