"""A store of podman's for what is typed in a lab: all in it goes with the lab, whatever was killed, and nothing of others does."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import ledger
from labkit.host.account import find as account
from labkit.kernel import mounts, rooted, trees
from labkit.kernel.cgroups import hierarchies
from labkit.kernel.processes import ending
from labkit.runtimes import Runtime, find, ours, podman_store

Root = Callable[[Runtime], Path]
STATE = "{{.State.Pid}} {{.State.ConmonPid}} {{.Id}}"


class Typed:
    """Podman as it is typed in the store of one owner."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        with ledger.owned_by(owner):
            self.directory = trees.make_tree(ledger.state() / "labs" / owner)
            mounts.ownership.claim(self.directory)
            podman_store.make(self.directory)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        environment = {**rooted.ENVIRONMENT, **podman_store.environment(self.directory)}
        return subprocess.Popen(["podman", *words], env=environment, stdout=subprocess.PIPE, text=True)

    def podman(self, *words: str) -> str:
        with self.begin(*words) as running:
            said = running.communicate()[0]
        assert running.returncode == 0, words
        return said

    def run(self, root: Path, *options: str, pod: str = "") -> tuple[ending.Known, ending.Known, str]:
        """Start a container called web, and return its first process, its conmon and its id."""
        where = ["--pod", pod] if pod else []
        self.podman(*options, "run", "--detach", *where, "--name", "web", "--rootfs", str(root), "sleep", "300")
        pid, conmon, identifier = self.podman("inspect", "--format", STATE, "web").split()
        first, monitor = ending.known(int(pid)), ending.known(int(conmon))
        assert first
        assert monitor
        return first, monitor, identifier


@pytest.fixture
def store() -> Iterator[Typed]:
    yield Typed("typed")
    ledger.undo("typed")


def left(store: Typed) -> list[str]:
    """Return what there is of a store, and of the containers that may have been in it."""
    found = [mount.mountpoint for mount in mounts.at_or_below(store.directory)]
    found += [str(path) for path in (store.directory, podman_store.session(store.directory)) if path.exists()]
    argv = ["pgrep", "-af", str(store.directory)]
    return found + subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def kept_of(identifier: str) -> list[Path]:
    """Return what the kernel and the low-level runtimes keep of a container."""
    roots = [hierarchy.path for hierarchy in hierarchies().mounted] + [Path("/run/runc"), Path("/run/crun")]
    return [found for root in roots for found in root.glob(f"**/*{identifier}")]


@pytest.mark.parametrize("runtime", podman_store.LOW_LEVEL)
@pytest.mark.parametrize("end", ["it runs", "conmon was killed", "it is paused"])
def test_what_is_typed_in_a_store_goes_with_it(store: Typed, root: Root, runtime: str, end: str):
    first, monitor, identifier = store.run(root(find("podman")), "--runtime", runtime)
    assert kept_of(identifier)
    assert ("web", "running", first.pid) in [(each.name, each.state, each.pid) for each in find("podman").list()]
    if end == "conmon was killed":
        os.kill(monitor.pid, signal.SIGKILL)
    if end == "it is paused":
        store.podman("pause", "web")
    ledger.undo(store.owner)
    assert not ours.lives(first)
    assert not ours.lives(monitor)
    assert kept_of(identifier) == left(store) == []


def test_the_cgroups_of_a_container_that_podman_has_forgotten_go_too(store: Typed, root: Root):
    _, monitor, identifier = store.run(root(find("podman")))
    os.kill(monitor.pid, signal.SIGKILL)
    store.podman("rm", "--force", "web")
    assert podman_store.ids(store.directory) == set()
    ledger.undo(store.owner)
    assert kept_of(identifier) == []


@pytest.mark.parametrize("end", ["its container runs", "its container is forgotten", "it never had one", "podman has removed it"])
def test_a_pod_goes_with_its_store_and_that_of_another_one_stays(store: Typed, root: Root, end: str):
    other = Typed("other")
    try:
        stays = other.podman("pod", "create", "--name", "both").strip()
        goes = store.podman("pod", "create", "--name", "both").strip()
        assert kept_of(goes)
        if end.startswith("its"):
            _, monitor, identifier = store.run(root(find("podman")), pod="both")
            assert any(goes in place.parts for place in kept_of(identifier))
        if end == "its container is forgotten":
            os.kill(monitor.pid, signal.SIGKILL)
            store.podman("rm", "--force", "web")
        if end == "podman has removed it":
            store.podman("pod", "rm", "--force", "both")
        ledger.undo(store.owner)
        assert kept_of(goes) == left(store) == []
        assert kept_of(stays)
    finally:
        ledger.undo("other")
    assert kept_of(stays) == []


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.08, 0.12, 0.2])
def test_podman_is_killed_in_the_middle_and_nothing_is_left(store: Typed, root: Root, seconds: float):
    running = store.begin("run", "--name", "web", "--rootfs", str(root(find("podman"))), "sleep", "300")
    time.sleep(seconds)
    running.kill()
    running.communicate()
    there = podman_store.ids(store.directory)
    ledger.undo(store.owner)
    assert [kept for identifier in there for kept in kept_of(identifier)] == left(store) == []


def test_a_container_of_the_same_name_in_another_store_stays(store: Typed, root: Root):
    other = Typed("other")
    try:
        first, _, identifier = other.run(root(find("podman")))
        store.run(root(find("podman")))
        ledger.undo(store.owner)
        assert ours.lives(first)
        assert kept_of(identifier)
        assert other.podman("ps", "--quiet", "--no-trunc").split() == [identifier]
    finally:
        ledger.undo("other")
    assert not ours.lives(first)


def test_what_the_machine_keeps_of_podman_is_neither_read_nor_changed(store: Typed, root: Root):
    everybodys = [Path("/var/lib/containers"), Path("/run/containers"), Path("/run/libpod"), Path("/dev/shm/libpod_lock")]
    before = [path.exists() for path in everybodys]
    store.run(root(find("podman")))
    assert store.podman("info", "--format", "{{.Store.GraphRoot}}").strip() == str(podman_store.graph(store.directory))
    ledger.undo(store.owner)
    assert [path.exists() for path in everybodys] == before


def test_a_user_has_a_store_at_home(store: Typed):
    user = account()
    with ledger.owned_by(store.owner):
        podman_store.make_for(user, store.directory)
    environment = podman_store.environment_of(user, store.directory)
    assert Path(environment["XDG_RUNTIME_DIR"]).stat().st_uid == user.uid
    assert str(store.directory / "home/.local/share/containers/storage") in Path(environment["CONTAINERS_STORAGE_CONF"]).read_text()
    ledger.undo(store.owner)
    assert not Path(environment["XDG_RUNTIME_DIR"]).exists()
