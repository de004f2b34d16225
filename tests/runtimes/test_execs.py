"""One `run` is followed from the client to the process in the container, whoever's tool it is."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit import ledger
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
    found = followed("docker", "-H", f"unix://{services.docker}", "run", "--rm", "busybox", "true")
    programs = [program for program in found.programs if program]
    for earlier, later in [("docker", "containerd-shim-runc-v2"), ("containerd-shim-runc-v2", "runc"), ("runc", "true")]:
        assert programs.index(earlier) < programs.index(later)
    assert calls(found)[:2] == [("docker", str(services.docker)), ("dockerd", str(services.containerd))]
    process = next(event.pid for event in found.record.events if event.what == "exec" and event.argv == ("true",))
    names = [found.record.roots.get(pid) for pid in lineage(found, process)]
    assert names[-1] == "containerd"  # it has started the shim; the client and dockerd have forked nothing of it
    assert "calls itself runc:[2:INIT]" in str(found)
    assert "becomes true" in str(found)


@pytest.mark.usefixtures("services")
def test_a_daemon_that_nobody_asked_is_not_in_it():
    found = followed("true")
    assert [event.what for event in found.record.events] == ["fork", "exec", "exit"]


def test_runc_alone_is_the_parent_of_its_process(root: Callable[[Runtime], Path], tmp_path: Path):
    config = json.loads(subprocess.run(["runc", "spec", "--bundle", tmp_path], check=True) and (tmp_path / "config.json").read_text())
    config["root"] = {"path": str(root(find("chroot"))), "readonly": True}
    config["process"] |= {"terminal": False, "args": ["true"]}
    config["process"].pop("rlimits", None)  # more than this machine may set
    config["linux"]["cgroupsPath"] = "/labkit-followed"
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = followed("runc", "--root", str(ledger.state() / "runc"), "run", "--bundle", str(tmp_path), "labkit-followed")
    runc = next(event.pid for event in found.record.events if event.what == "exec" and event.argv[:1] == ("runc",))
    process = next(event.pid for event in found.record.events if event.what == "exec" and event.argv == ("true",))
    assert lineage(found, process)[0] == runc
    assert [event.comm for event in found.record.events if event.what == "comm"] == [
        "runc:[0:PARENT]",
        "runc:[1:CHILD]",
        "runc:[2:INIT]",
    ]
