"""What a container changed, by docker's word and by the kernel's: both say the same."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import ledger
from labkit.errors import LabError
from labkit.images import saved
from labkit.kernel import trees, upper
from labkit.runtimes import docker_daemon, docker_images

SCRIPT = """
date > /data
echo more >> /etc/profile
rm /etc/shadow
rm -r /var/spool
rm -r /var/log; mkdir /var/log; touch /var/log/new
chmod 700 /srv
touch -r /etc/group /x; echo >> /etc/group; mv /etc/group /g; mv /g /etc/group
mkdir -p /deep/er; ln -s /data /deep/link
touch /tmp/there-and-gone; rm /tmp/there-and-gone
ln /bin/busybox /bin/second
"""
SIGNS = {"A": "added", "C": "changed", "D": "removed"}


@pytest.fixture
def own(own_state: Path) -> Iterator[Path]:
    before = ledger.owner()
    ledger.own("changes")
    place = trees.make_tree(own_state / "changes-docker")
    docker_daemon.serve(place)
    yield place
    ledger.undo("changes")
    ledger.own(before)


def docker(place: Path, *words: str, **more: str) -> str:
    environment = os.environ | docker_daemon.environment(place)
    return subprocess.run(["docker", *words], env=environment, check=True, capture_output=True, text=True, **more).stdout.strip()


@pytest.mark.usefixtures("services")
def test_docker_and_the_kernel_name_the_same_paths(own: Path):
    docker(own, "container", "run", "--detach", "--name", "web", "alpine", "sh", "-c", f"{SCRIPT}\ntouch /done; exec sleep 600")
    while "/done" not in docker(own, "container", "diff", "web"):
        pass
    pid = int(docker(own, "container", "inspect", "--format", "{{.State.Pid}}", "web"))
    said = [line.split(" ", 1) for line in docker(own, "container", "diff", "web").splitlines()]
    found = {(f"/{change.path}", change.kind) for change in upper.changes(pid)}
    assert found == {(path, SIGNS[sign]) for sign, path in said}
    assert {("/data", "added"), ("/etc/shadow", "removed"), ("/var/log/new", "added"), ("/srv", "changed")} <= found


@pytest.mark.usefixtures("services")
def test_what_is_committed_is_what_was_changed(own: Path, tmp_path: Path):
    docker(own, "container", "run", "--detach", "--name", "web", "alpine", "sh", "-c", "date > /data; rm /etc/shadow; exec sleep 600")
    while "D /etc/shadow" not in docker(own, "container", "diff", "web"):
        pass
    docker(own, "container", "commit", "web", "kept")
    last = saved.read(docker_images.save("kept", tmp_path / "kept.tar")).layers[-1]
    assert (last.added, last.changed, last.removed) == (("data",), (), ("etc/shadow",))
    assert saved.file(tmp_path / "kept.tar", "data")
    assert saved.file(tmp_path / "kept.tar", "etc/shadow") is None


def test_a_process_without_an_overlay_has_no_upper_layer():
    with pytest.raises(LabError, match=r"has no upper layer|cannot be read"):
        upper.changes(os.getpid())


@pytest.mark.usefixtures("services")
def test_an_image_that_is_not_there_is_named(own: Path, tmp_path: Path):
    with pytest.raises(LabError, match="docker has no image nosuch"):
        docker_images.save("nosuch", tmp_path / "no.tar")
