"""The operations of the OCI runtime specification, each read back from the kernel, with every runtime that has them."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from labkit import ledger, runtimes
from labkit.errors import CommandError, LabError
from labkit.kernel.processes import ending
from labkit.runtimes import Runtime, bundle, ours
from labkit.runtimes.lifecycle import Lifecycle, cgroups_path

HOOK = "#!/bin/sh\n(echo {when}; cat; echo) >> {trace}\n"


@pytest.fixture(params=["runc", "crun"])
def life(request: pytest.FixtureRequest) -> Lifecycle:
    return runtimes.find(request.param).lifecycle()


@pytest.fixture
def web(life: Lifecycle, root: Callable[[Runtime], Path], tmp_path: Path) -> Path:
    """Make a bundle: the runtime's own example, with a program that says where it is and ends on SIGTERM."""
    config = life.spec(tmp_path)
    program = ("sh", "-c", 'echo "in $(hostname)"; trap "exit 7" TERM; while :; do sleep 0.1; done')
    process = replace(config.process, args=program, terminal=False)
    place = bundle.Root(str(root(runtimes.find(life.program))))
    linux = replace(config.linux, cgroups_path=cgroups_path(life.program, "web"))
    bundle.write(tmp_path, replace(config, process=process, root=place, hostname="web", linux=linux))
    return tmp_path


def inside(pid: int) -> bytes:
    """Return the first word of a process, as soon as it has any: in the middle of an execve there is none."""
    deadline = time.monotonic() + 10
    while not (words := Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))[0]:
        assert time.monotonic() < deadline
    return words[0]


def of_the_lab(life: Lifecycle) -> list[tuple[str, str, int | None]]:
    return [(container.name, container.state, container.pid) for container in life.containers() if container.ours]


def written(life: Lifecycle, name: str = "web") -> str:
    """Return the first line that a container has written, once it is there."""
    deadline = time.monotonic() + 5
    while not life.output(name).endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return life.output(name)


def test_a_bundle_is_created_started_killed_and_deleted(life: Lifecycle, web: Path):
    created = life.create(web, "web")
    assert (created["id"], created["status"], created["bundle"]) == ("web", "created", str(web))
    assert created["ociVersion"].startswith("1.")
    init = ending.known(created["pid"])
    assert inside(init.pid).endswith(life.program.encode())
    assert os.readlink(f"/proc/{init.pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    assert of_the_lab(life) == [("web", "created", init.pid)]
    life.start("web")
    assert life.state("web") == {**created, "status": "running"}
    assert inside(init.pid) == b"sh"
    with pytest.raises(CommandError):
        life.delete("web")  # the specification: of one that is not stopped it must fail and have no effect
    assert life.state("web")["status"] == "running"
    assert written(life) == "in web\n"
    life.kill("web")
    assert ours.terminate(init, 5, 0)
    assert life.state("web")["status"] == "stopped"
    life.delete("web")
    with pytest.raises(CommandError):
        life.state("web")
    assert of_the_lab(life) == []
    assert [entry.kind for entry in ledger.live() if entry.key.get("name") == "web"] == []


def test_one_that_is_only_created_may_be_deleted_and_leaves_nothing(life: Lifecycle, web: Path):
    init = ending.known(life.create(web, "web")["pid"])
    life.delete("web")
    assert not ours.lives(init)
    assert of_the_lab(life) == []


def test_what_is_paused_does_not_run_until_it_is_resumed(life: Lifecycle, web: Path):
    pid = life.create(web, "web")["pid"]
    life.start("web")
    life.pause("web")
    assert life.state("web")["status"] == "paused"
    assert of_the_lab(life) == [("web", "paused", pid)]
    life.resume("web")
    assert life.state("web")["status"] == "running"
    life.pause("web")
    runtimes.find(life.program).stop("web")
    assert life.state("web")["status"] == "stopped"
    life.delete("web")


def test_hooks_run_at_their_points_of_the_life_cycle_with_the_state_on_their_standard_input(life: Lifecycle, web: Path):
    points = ("createRuntime", "poststart", "poststop")
    trace = web / "trace"
    for when in points:
        (web / when).write_text(HOOK.format(when=when, trace=trace))
        (web / when).chmod(0o755)
    hook = {when: (bundle.Hook(str(web / when)),) for when in points}
    hooks = bundle.Hooks(create_runtime=hook["createRuntime"], poststart=hook["poststart"], poststop=hook["poststop"])
    bundle.write(web, replace(bundle.read(web), hooks=hooks))
    pid = life.create(web, "web")["pid"]
    assert trace.read_text().startswith("createRuntime\n")
    life.start("web")
    init = ending.known(pid)
    life.kill("web", "KILL")
    assert ours.terminate(init, 5, 0)
    assert "poststop" not in trace.read_text()
    life.delete("web")
    lines = [line for line in trace.read_text().splitlines() if line]
    assert [line for line in lines if line in points] == list(points)
    states = [json.loads(text) for text in trace.read_text().replace("\n", " ").split("createRuntime")[1].split("post")[:1]]
    assert (states[0]["id"], states[0]["pid"], states[0]["bundle"]) == ("web", pid, str(web))


def test_a_hook_that_fails_fails_the_creation_and_nothing_is_left(life: Lifecycle, web: Path):
    bundle.write(web, replace(bundle.read(web), hooks=bundle.Hooks(create_runtime=(bundle.Hook("/bin/false"),))))
    with pytest.raises(CommandError):
        life.create(web, "web")
    assert of_the_lab(life) == []
    assert [entry.kind for entry in ledger.live() if entry.key.get("name") == "web"] == []


def test_a_bundle_that_cannot_be_is_refused_before_anything_is_made(life: Lifecycle, web: Path, tmp_path: Path):
    good = bundle.read(web)
    for path in ("", "/elsewhere/web", "/lab-contract", "/lab-contract/../web", "lab-contract/web"):
        bundle.write(web, replace(good, linux=replace(good.linux, cgroups_path=path)))
        with pytest.raises(
            LabError, match=r"linux.cgroupsPath: .* is not in the lab's part of the cgroups; remedy: a path such as /lab-contract"
        ):
            life.create(web, "web")
    bundle.write(web, replace(good, process=replace(good.process, cwd="root")))
    with pytest.raises(LabError, match=r"process.cwd: .*is not an absolute path; cause: runtime-spec config.md, Process"):
        life.create(web, "web")
    with pytest.raises(LabError, match="is no OCI bundle"):
        life.create(tmp_path / "nothing", "web")
    assert of_the_lab(life) == []
    bundle.write(web, good)
    for verb in (life.start, life.kill, life.pause, life.resume, life.delete):
        with pytest.raises(LabError, match=f"no container {life.program}:nobody; remedy: there are: "):
            verb("nobody")


def test_one_bundle_runs_with_either_runtime(web: Path, root: Callable[[Runtime], Path]):
    seen = {}
    for name in ("runc", "crun"):
        life = runtimes.find(name).lifecycle()
        pid = life.create(web, "plug")["pid"]
        life.start("plug")
        assert inside(pid) == b"sh"
        seen[name] = written(life, "plug")
        runtimes.find(name).stop("plug", 0)
        runtimes.find(name).remove("plug")
    assert seen == {"runc": "in web\n", "crun": "in web\n"}


def test_containers_of_somebody_else_are_listed_and_left_alone(life: Lifecycle, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    life.create(web, "web")
    with monkeypatch.context() as elsewhere:
        others = life.root
        elsewhere.setenv("LABKIT_STATE", str(tmp_path / "state"))
        stranger = Lifecycle(life.program, others)
        assert ("web", "created", False) in [(container.name, container.state, container.ours) for container in stranger.containers()]
        with pytest.raises(LabError, match="was not made by a lab and stays as it is"):
            stranger.kill("web")
    runtimes.find(life.program).stop("web", 0)
    life.delete("web")
