"""What a person starts with runc in a lab has its state and its cgroups there, and goes with the lab; what others started stays."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import ledger
from labkit.errors import LabError
from labkit.kernel import trees
from labkit.kernel.cgroups import hierarchies, members
from labkit.kernel.processes import ending
from labkit.runtimes import Runtime, by_hand, find, ours

LAB = "by-hand"
SLEEPS = 's|"terminal": true|"terminal": false|; s|"sh"|"sleep", "600"|; s|"path": "rootfs"|"path": "{}"|'
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@pytest.fixture
def place(own_state: Path) -> Iterator[Path]:
    before = ledger.owner()
    ledger.own(LAB)
    by_hand.claim("web")
    directory = trees.make_tree(own_state / "by-hand")
    by_hand.make(directory)
    yield directory
    ledger.undo(LAB)
    ledger.own(before)


@pytest.fixture
def bundle(place: Path, root: Callable[[Runtime], Path]) -> Path:
    made = place / "bundle"
    made.mkdir()
    subprocess.run(["runc", "spec", "--bundle", made], check=True)
    subprocess.run(["sed", "-i", SLEEPS.format(root(find("runc"))), made / "config.json"], check=True)
    return made


def typed(place: Path, *words: object) -> str:
    environment = os.environ | {"PATH": os.pathsep.join([*by_hand.path(place), os.environ["PATH"]])}
    argv = ["runc", *map(str, words)]
    with open(place / "said", "w+") as said:  # a container keeps what it was given: a pipe would be read for ever
        done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False)
        said.seek(0)
        text = said.read()
    assert done.returncode == 0, text
    return text


def everybodys() -> list[str]:
    return subprocess.run(["runc", "list", "--quiet"], check=True, capture_output=True, text=True).stdout.split()


def cgroups() -> list[Path]:
    return [path for one in hierarchies().mounted if not one.own for path in one.path.glob(f"lab-{LAB}/runc/*") if path.is_dir()]


def run(place: Path, bundle: Path, name: str = "web") -> int:
    typed(place, "run", "--detach", "--bundle", bundle, name)
    pid = by_hand.first(place, name)
    assert pid is not None
    return pid


def test_a_container_that_names_no_cgroup_has_those_of_the_lab(place: Path, bundle: Path):
    pid = run(place, bundle)
    assert {path for path in members.memberships(pid).values() if path != "/"} == {f"/lab-{LAB}/runc/web"}
    assert (by_hand.state(place) / "web/state.json").is_file()
    assert "web" not in everybodys()


def test_it_is_paused_and_resumed(place: Path, bundle: Path):
    run(place, bundle)
    typed(place, "pause", "web")
    assert "paused" in typed(place, "list")
    typed(place, "resume", "web")
    assert "running" in typed(place, "list")


def test_a_paused_one_goes_with_the_lab(place: Path, bundle: Path):
    init = ending.known(run(place, bundle))
    assert init is not None
    typed(place, "pause", "web")
    ledger.undo(LAB)
    assert not ours.lives(init)
    assert not cgroups()
    assert not place.exists()


def test_one_that_has_ended_is_told_from_one_that_was_never_there(place: Path, bundle: Path):
    run(place, bundle)
    typed(place, "kill", "web", "KILL")
    deadline = time.monotonic() + 10
    while by_hand.first(place, "web") is not None:
        assert time.monotonic() < deadline
    with pytest.raises(LabError, match="runc has no container other"):
        by_hand.first(place, "other")


def test_one_of_a_terminal_that_knew_nothing_of_the_lab_goes_too_and_that_of_another_stays(place: Path, bundle: Path, tmp_path: Path):
    other = tmp_path / "canary"
    other.mkdir()
    (other / "config.json").write_text((bundle / "config.json").read_text())
    try:
        for name, made in (("labkit-canary", other), ("labkit-plain", bundle)):
            subprocess.run(["runc", "run", "--detach", "--bundle", made, name], check=True, **QUIET)
        ledger.undo(LAB)
        assert {"labkit-canary", "labkit-plain"} & set(everybodys()) == {"labkit-canary"}
    finally:
        for name in ("labkit-canary", "labkit-plain"):
            subprocess.run(["runc", "delete", "--force", name], check=True)


def test_all_of_it_goes_after_the_maker_was_killed(own_state: Path, root: Callable[[Runtime], Path]):
    script = f"""
import os, pathlib, subprocess
from labkit import ledger
from labkit.kernel import trees
from labkit.runtimes import by_hand
ledger.own({LAB!r})
by_hand.claim("web")
place = trees.make_tree(pathlib.Path({str(own_state)!r}) / "by-hand")
by_hand.make(place)
runc = str(place / "bin/runc")
subprocess.run([runc, "spec", "--bundle", place], check=True)
subprocess.run(["sed", "-i", {SLEEPS.format(root(find("runc")))!r}, place / "config.json"], check=True)
quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
subprocess.run([runc, "run", "--detach", "--bundle", place, "web"], check=True, **quiet)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert cgroups()
    subprocess.run([sys.executable, "-m", "labkit", "clean"], env=os.environ, check=True, capture_output=True)
    assert not cgroups()
    assert not (own_state / "by-hand").exists()
