"""What goes before runc where root lacks a capability strikes it from what runc is told to grant, and nothing else."""

import json
import subprocess
from pathlib import Path

import pytest

from labkit.runtimes import granting

TOLD = {
    "bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"],
    "effective": ["CAP_SYS_RESOURCE", "CAP_KILL"],
    "permitted": ["CAP_SYS_RESOURCE"],
}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(granting, "lacking", lambda: ("CAP_SYS_RESOURCE", "CAP_BPF"))
    monkeypatch.setattr(granting.shutil, "which", lambda _: "/bin/echo")
    said = granting.settings(tmp_path)
    assert said["default-runtime"] in said["runtimes"]
    return said["runtimes"][said["default-runtime"]]["path"]


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (("create", "--bundle", "{}", "--pid-file", "p", "web"), "config.json"),
        (("exec", "--process", "{}/process.json", "--detach", "web"), "process.json"),
    ],
)
def test_it_is_struck_and_runc_gets_the_same_words(program: str, tmp_path: Path, words: tuple[str, ...], file: str):
    (tmp_path / file).write_text(json.dumps({"process": {"capabilities": TOLD}}, separators=(",", ":")))
    typed = [word.format(tmp_path) for word in words]
    assert subprocess.run([program, *typed], check=True, capture_output=True, text=True).stdout.split() == typed
    left = json.loads((tmp_path / file).read_text())["process"]["capabilities"]
    assert left == {"bounding": ["CAP_CHOWN"], "effective": ["CAP_KILL"], "permitted": []}


def test_where_nothing_is_told_nothing_is_changed(program: str):
    assert subprocess.run([program, "delete", "web"], check=True, capture_output=True, text=True).stdout == "delete web\n"


def test_where_root_has_every_capability_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(granting, "lacking", lambda: ())
    assert granting.settings(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
