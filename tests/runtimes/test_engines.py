"""Docker and podman beside others who use them on the same machine."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import ledger, runtimes
from labkit.errors import LabError
from labkit.host.services import Places
from labkit.kernel import mounts
from labkit.kernel.cgroups import subtree
from labkit.runtimes import Runtime

Root = Callable[[Runtime], Path]
LOOP = ["sh", "-c", 'trap "exit 0" TERM; while :; do sleep 0.1; done']


def said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def docker(services: Places) -> Iterator[Callable[..., str]]:
    """Speak to the daemon as somebody else does; what the test named labkit-canary goes at its end."""

    def client(*words: str) -> str:
        return said("docker", "--host", f"unix://{services.docker}", *words)

    yield client
    for verb, ask in (("rm", "ps"), ("rmi", "images")):
        which = ("--all", "--filter", "name=labkit-canary") if ask == "ps" else ("labkit-canary",)
        for found in client(ask, "--quiet", *which).split():
            client(verb, "--force", found)


def test_what_others_made_of_our_image_is_listed_and_stays(docker: Callable[..., str], root: Root):
    runtime = runtimes.find("docker")
    runtime.start(root(runtime), LOOP, "labkit-web")
    images = docker("images", "--quiet", "labkit-rootfs").split()
    docker("commit", "labkit-web", "labkit-canary")  # it inherits the label by which a container of ours is known
    parent = [f"--cgroup-parent=/{subtree()}"] if docker("info", "--format", "{{.CgroupDriver}}") == "cgroupfs\n" else []
    docker("run", "--detach", "--network", "none", *parent, "--name", "labkit-canary", "labkit-canary", "sleep", "300")
    assert ("labkit-canary", "running", False) in [(one.name, one.state, one.ours) for one in runtime.list()]
    for verb in (runtime.stop, runtime.remove):
        with pytest.raises(LabError, match="docker:labkit-canary was not made by a lab and stays as it is"):
            verb("labkit-canary")
    with pytest.raises(LabError, match="docker:labkit-canary is there already; cause: its state is running, and no lab made it"):
        runtime.start(root(runtime), LOOP, "labkit-canary")
    runtime.stop("labkit-web")
    runtime.remove("labkit-web")
    assert len(images) == 1
    assert docker("images", "--quiet", "labkit-rootfs") == ""
    assert docker("inspect", "--format", "{{.State.Status}}", "labkit-canary") == "running\n"


def test_a_container_that_was_removed_by_hand_is_no_trouble(docker: Callable[..., str], root: Root):
    runtime = runtimes.find("docker")
    runtime.start(root(runtime), LOOP, "labkit-web")
    docker("rm", "--force", "labkit-web")
    assert "labkit-web" not in [container.name for container in runtime.list()]
    runtime.stop("labkit-web")
    runtime.remove("labkit-web")
    assert docker("images", "--quiet", "labkit-rootfs") == ""


def test_docker_has_crun_as_a_second_runtime(docker: Callable[..., str], root: Root):
    runtime = runtimes.find("docker")
    runtime.start(root(runtime), LOOP, "labkit-web")
    docker("commit", "labkit-web", "labkit-canary")
    parent = [f"--cgroup-parent=/{subtree()}"] if docker("info", "--format", "{{.CgroupDriver}}") == "cgroupfs\n" else []
    docker("run", "--detach", "--runtime", "crun", "--network", "none", *parent, "--name", "labkit-canary", "labkit-canary", "sleep", "300")
    made = docker("inspect", "--format", "{{.Id}}", "labkit-canary").strip()
    states = [path.name for path in Path("/run").glob(f"**/moby/{made}/status")]  # crun's record; that of runc is state.json
    runtime.stop("labkit-web")
    runtime.remove("labkit-web")
    assert states == ["status"]


def test_a_daemon_that_is_not_there_is_said_with_its_remedy(services: Places, root: Root, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    runtime = runtimes.find("docker")
    (tmp_path / "services.json").write_text('{"docker": "/run/no-docker.sock"}')
    place = root(runtime)
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    assert runtime.available() == "/run/no-docker.sock: No such file or directory"
    assert runtime.list() == ()
    with pytest.raises(LabError, match=r"docker does not answer; cause: /run/no-docker\.sock: No such.*; remedy: labkit up docker"):
        runtime.start(place, LOOP, "labkit-web")
    assert ledger.live() == []


@pytest.mark.parametrize("name", ["podman", "podman-rootless"])
def test_two_containers_of_a_store_do_not_disturb_each_other(name: str, root: Root):
    runtime = runtimes.find(name)
    first, second = (runtime.start(root(runtime), LOOP, word) for word in ("one", "two"))
    runtime.stop("one")  # the process that keeps a user's namespaces open may have begun with it
    runtime.remove("one")
    assert runtime.exec("two", ["echo", "here"]).stdout == "here\n"
    runtime.stop("two")
    runtime.remove("two")
    assert first.pid != second.pid


def test_a_user_s_root_is_mapped_to_that_user_and_the_others_to_its_subordinate_ids(root: Root):
    runtime = runtimes.find("podman-rootless")
    (inside, outside, count), rest = runtime.id_map()
    started = runtime.start(root(runtime), LOOP, "labkit-web")
    lines = [tuple(map(int, line.split())) for line in Path(f"/proc/{started.pid}/uid_map").read_text().splitlines()]
    assert lines == [(inside, outside, count), rest]
    assert os.stat(f"/proc/{started.pid}").st_uid == outside
    runtime.stop("labkit-web")
    runtime.remove("labkit-web")


def test_the_store_goes_with_the_lab(root: Root):
    runtime = runtimes.find("podman")
    runtime.start(root(runtime), LOOP, "labkit-web")
    session = runtime.session()
    assert session.is_dir()
    ledger.undo()
    assert not session.exists()
    assert not runtime.store().exists()


def test_a_storage_that_a_killed_podman_left_mounted_on_itself_goes_with_the_lab(root: Root):
    runtime = runtimes.find("podman")
    runtime.start(root(runtime), LOOP, "labkit-web")
    storage = runtime.store() / "storage/overlay"
    if not mounts.at_or_below(storage):  # podman mounts it for as long as it runs
        subprocess.run(["mount", "--bind", storage, storage], check=True)
    ledger.undo()
    assert not mounts.at_or_below(storage)
    assert not runtime.store().exists()
