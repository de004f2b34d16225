"""CRI-O where there is none, and where what is given as one is no CRI-O."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit import ledger, runtimes
from labkit.errors import LabError
from labkit.host import cri
from labkit.host.measures import Machine
from labkit.runtimes import Runtime, crio_conf


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no CRI-O be found, also on a machine that has one."""
    monkeypatch.delenv("LABKIT_CRIO", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_a_binary_it_says_so_and_what_runs_instead(root: Callable[[Runtime], Path], request: pytest.FixtureRequest):
    runtime = runtimes.find("crio")
    place = root(runtime)
    request.getfixturevalue("absent")
    assert runtime.available() == "no command crio in PATH, and LABKIT_CRIO names none"
    assert runtime.list() == ()
    with pytest.raises(LabError, match=r"there is no CRI-O; cause: no command crio.*remedy: .*use the runtime cri"):
        runtime.start(place, ["sh"], "web")
    finding = cri.crio(Machine(path=os.environ["PATH"]))
    assert (finding.colour, finding.measured) == ("amber", "every step of the CRI runs against containerd")


@pytest.mark.usefixtures("services")
def test_a_binary_that_ends_instead_of_serving_is_told_and_leaves_nothing(root: Callable[[Runtime], Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABKIT_CRIO", "/bin/false")
    runtime = runtimes.find("crio")
    with pytest.raises(LabError, match="crio ended with status 1"):
        runtime.start(root(runtime), ["sleep", "300"], "web")
    assert [entry for entry in ledger.live() if entry.kind.startswith("crio")] == []
    told = crio_conf.validate((ledger.state() / "crio/crio.conf").read_text())
    assert told["crio"]["runtime"]["runtimes"].keys() >= {"runc", "crun"}


@pytest.mark.usefixtures("services")
def test_the_doctor_sees_who_serves_the_cri():
    finding = cri.cri(Machine())
    assert finding.colour == "green", finding
    assert finding.measured.startswith("containerd serves it at /")
