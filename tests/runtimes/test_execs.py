"""One `run` is followed from the client to the process in the container, whoever's tool it is."""

import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from labkit.course.following import Followed, following
from labkit.host.services.places import Places
from labkit.runtimes import Runtime, find


def followed(*argv: str, env: dict[str, str] | None = None) -> Followed:
    with following() as found:
        done = subprocess.run(argv, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return found


def calls(found: Followed) -> list[tuple[str, str]]:
    """Return who was seen connected to which socket, by the name under which it was executed."""
    names = dict(found.record.roots)
    seen = []
    for event in found.record.events:
        if event.what == "exec" and event.argv:
            names[event.pid] = Path(event.argv[0]).name
        elif event.what == "call":
            seen.append((names[event.pid], event.address))
    return seen


def lineage(found: Followed, pid: int) -> list[int]:
    """Return the parents of a process, as they forked."""
    parents = {event.child: event.pid for event in found.record.events if event.what == "fork"}
    above = []
    while pid in parents:
        above.append(pid := parents[pid])
    return above


def test_docker_run_goes_from_the_client_over_two_daemons_the_shim_and_runc_to_the_process(services: Places):
    found = followed("docker", "-H", f"unix://{services.docker}", "run", "--rm", "busybox", "sleep", "1")
    programs = [program for program in found.programs if program]
    for earlier, later in pairwise(["docker", "containerd-shim-runc-v2", "runc", "sleep"]):
        assert programs.index(earlier) < programs.index(later)
    assert calls(found)[:2] == [("docker", str(services.docker)), ("dockerd", str(services.containerd))]
    process = next(event.pid for event in found.record.events if event.what == "exec" and event.argv == ("sleep", "1"))
    names = [found.record.roots.get(pid) for pid in lineage(found, process)]
    assert names[-1] == "containerd"  # it has started the shim; the client and dockerd have forked nothing of it
    assert "calls itself runc:[2:INIT]" in str(found)
    assert "becomes sleep" in str(found)


@pytest.mark.usefixtures("services")
def test_a_daemon_that_nobody_asked_is_not_in_it():
    found = followed("true")
    assert [event.what for event in found.record.events] == ["fork", "exec", "exit"]


@pytest.mark.parametrize(
    ("name", "programs"),
    [("runc", ["runc", "runc", "sleep"]), ("crun", ["crun", "crun", "sleep"]), ("podman", ["podman", "conmon", "runc", "sleep"])],
)
def test_what_a_runtime_calls_is_seen_up_to_the_process(name: str, programs: list[str], root: Callable[[Runtime], Path]):
    runtime = find(name)
    with following() as found:
        container = runtime.start(root(runtime), ["sleep", "1000"], "followed")
    try:
        seen = iter(found.programs)
        assert all(program in seen for program in programs), found.programs
        process = next(event.pid for event in found.record.events if event.what == "exec" and event.argv == ("sleep", "1000"))
        assert process == container.pid
        assert lineage(found, process)[-1] in found.record.roots
        named = [event.comm for event in found.record.events if event.what == "comm" and event.comm.startswith("runc:")]
        assert sorted(set(named)) == ([] if name == "crun" else ["runc:[0:PARENT]", "runc:[1:CHILD]", "runc:[2:INIT]"])
    finally:
        runtime.stop("followed", 0)
        runtime.remove("followed")
