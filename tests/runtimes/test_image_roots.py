"""The layers of an image, unpacked and stacked by hand, are the root file system that docker mounts and runs."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import ledger
from labkit.images import image, stack
from labkit.images.layout import Layout
from labkit.images.oci import CONFIG, LAYER, MANIFEST, ImageConfig, Manifest, Platform
from labkit.images.reference import Reference
from labkit.kernel import contents, mounts, trees
from labkit.kernel.mounts.table import mountinfo
from labkit.kernel.overlay import Overlay, layers
from labkit.runtimes import docker_daemon

OWNER = "roots"
SCRIPT = """
rm /etc/profile; rm -r /var/spool; mkdir /var/spool; echo new > /var/spool/file; chmod 4750 /bin/busybox
chown 33:34 /etc/group; ln -s /nowhere /link; echo more >> /etc/passwd; mkfifo /pipe
"""
"""What a step of a build does: takes away, replaces a directory, changes mode, owner and content, makes a link and a pipe."""


@pytest.fixture
def place(own_state: Path) -> Iterator[Path]:
    before = ledger.owner()
    ledger.own(OWNER)
    yield trees.make_tree(own_state / "image-roots")
    ledger.undo(OWNER)
    ledger.own(before)


@pytest.fixture
def canary() -> Iterator[tuple[str, list[str]]]:
    """A container and an image of the machine's own docker: their ids are the same in the end."""
    run("docker", "run", "--detach", "--name", "canary", "busybox", "sleep", "600")
    before = seen()
    yield before
    after = seen()
    run("docker", "rm", "--force", "canary")
    assert after == before


def seen() -> tuple[str, list[str]]:
    images = run("docker", "images", "--all", "--digests", "--no-trunc", "--quiet").splitlines()
    return run("docker", "top", "canary", "-o", "pid,args"), sorted(images)  # two of one age have no order


def run(*argv: str, place: Path | None = None) -> str:
    environment = os.environ | (docker_daemon.environment(place) if place else {})
    return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True, cwd=place).stdout.strip()


def started(place: Path) -> int:
    """Run a container of an image that a step has changed, and return its first process."""
    run("docker", "container", "run", "--name", "step", "busybox", "sh", "-ec", SCRIPT, place=place)
    run("docker", "container", "commit", "step", "changed", place=place)
    run("docker", "image", "save", "--output", "changed.tar", "changed", place=place)
    run("skopeo", "copy", "--quiet", "docker-archive:changed.tar", "oci:changed:latest", place=place)
    run("docker", "container", "run", "--detach", "--name", "web", "changed", "sleep", "600", place=place)
    return int(run("docker", "container", "inspect", "--format", "{{.State.Pid}}", "web", place=place))


def unpacked(place: Path) -> list[Path]:
    layout = Layout(place / "changed")
    (place / "layers").mkdir()
    return list(reversed(stack.unpack(layout, image.in_layout(layout), place / "layers")))


def stacked(place: Path, lower: list[Path]) -> Path:
    for name in ("upper", "work", "merged"):
        (place / name).mkdir()
    return Overlay(lower, place / "upper", place / "work", place / "merged").mount().merged


@pytest.mark.usefixtures("services", "canary")
def test_the_root_stacked_by_hand_is_the_one_that_docker_mounts(place: Path) -> None:
    daemon = docker_daemon.serve(place)
    pid = started(place)
    root = next(mount for mount in mountinfo(pid) if mount.mountpoint == "/")
    dockers_own = Path(os.path.realpath(layers(root)[0][0]))
    merged = stacked(place, [dockers_own, *unpacked(place)])
    as_run = contents.compare(merged, Path(f"/proc/{pid}/root"))
    assert as_run.unequal == ()
    assert {"proc", "sys", "dev", "etc/hosts"} <= set(as_run.covered)
    as_mounted = next(mount for mount in mountinfo(daemon.pid) if mount.device == root.device).mountpoint
    compared = contents.compare(merged, Path(f"/proc/{daemon.pid}/root{as_mounted}"))
    assert (compared.covered, compared.unequal) == ((), ())
    assert compared.names > 200
    assert not (merged / "etc/profile").exists()
    assert os.listdir(merged / "var/spool") == ["file"]
    assert stat.S_IMODE((merged / "bin/busybox").stat().st_mode) == 0o4750


@pytest.mark.usefixtures("services", "canary")
def test_what_is_changed_or_left_out_by_hand_is_found(place: Path) -> None:
    docker_daemon.serve(place)
    pid = started(place)
    upper, lower = unpacked(place)
    (upper / "etc/profile").unlink()  # the whiteout
    merged = stacked(place, [upper, lower])
    os.chown(merged / "etc/shadow", 1, 0)
    os.setxattr(merged / "bin", "trusted.label", b"x")
    found = {each.path: each.what for each in contents.compare(merged, Path(f"/proc/{pid}/root")).unequal}
    assert found.pop(".dockerenv") == "only in the second"
    assert found.pop("etc/mtab") == "only in the second"
    assert found == {"etc/profile": "only in the first", "etc/shadow": "owner", "bin": "xattrs"}


def test_whiteouts_and_opaque_directories_are_the_kernels(place: Path) -> None:
    tree = place / "tree"
    for path in ("lower/etc/old", "lower/var/old", "lower/kept"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(path)
    for path in ("upper/etc/.wh.old", "upper/var/.wh..wh..opq", "upper/var/new"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).touch()
    layout = Layout.create(place / "changed")
    pack(layout, tree / "lower", tree / "upper")
    merged = stacked(place, unpacked(place))
    assert sorted(str(path.relative_to(merged)) for path in merged.rglob("*")) == ["etc", "kept", "var", "var/new"]
    assert stat.S_ISCHR((place / "layers/2/etc/old").lstat().st_mode)
    assert os.getxattr(place / "layers/2/var", "trusted.overlay.opaque") == b"y"
    assert mounts.is_mounted_on(merged)


def pack(layout: Layout, *trees_of_layers: Path) -> None:
    tars = [subprocess.run(["tar", "-cC", tree, "."], check=True, capture_output=True).stdout for tree in trees_of_layers]
    found = tuple(layout.add(each, LAYER) for each in tars)
    config = ImageConfig(Platform("amd64", "linux"), tuple(each.digest for each in found))
    layout.tag(layout.add(Manifest(layout.add(config.serialize(), CONFIG), found).serialize(), MANIFEST), "latest")


@pytest.mark.usefixtures("services")
def test_the_digest_that_docker_shows_is_the_one_that_the_registry_gives(place: Path) -> None:
    docker_daemon.serve(place)
    run("docker", "image", "pull", "alpine", place=place)
    reference = Reference.parse("alpine")
    asked = image.in_registry(reference.registry(), reference.repository, reference.tag)
    assert run("docker", "image", "ls", "--digests", "--format", "{{.Digest}}", "alpine", place=place) == asked.digest
