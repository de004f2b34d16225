"""What `rkt`, typed in a lab, knows of the lab without being told."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import ledger
from labkit.appc import command, door
from labkit.errors import UnsupportedError
from labkit.host import rootfs
from labkit.runtimes import by_hand, rkt_by_hand

LAB = "5.2"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Path]:
    """A lab's directory, with hosts that listen somewhere."""
    before = ledger.owner()
    ledger.own(LAB)
    (tmp_path / "bin").mkdir()
    (tmp_path / "sites").write_text("127.0.0.1:4242\n")
    yield tmp_path
    ledger.own(before)


def test_the_lines_of_a_lab_find_its_places(lab: Path) -> None:
    assert rkt_by_hand.environment(lab) == {"RKT_DIR": f"{lab}/rkt", "RKT_LOCAL_CONFIG": f"{lab}/rkt.d"}
    assert by_hand.path(lab) == []
    door.write(lab / "bin", rkt_by_hand.data(lab), rkt_by_hand.local(lab))
    assert by_hand.path(lab) == [f"{lab}/bin"]


def test_the_door_says_whose_the_pods_are_and_how_hosts_are_reached(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_STATE", "/state of it")
    monkeypatch.setenv("LABKIT_RKT", "/usr/bin/env")
    program = door.write(lab / "bin", lab / "rkt", lab / "rkt.d", rkt_by_hand._variables(lab))
    assert "--dir=" in subprocess.run([program], env={}, capture_output=True, text=True, check=False).stderr  # env knows no such option
    said = program.read_text()
    for word in ("LABKIT_LAB=5.2", "LABKIT_STATE='/state of it'", "HTTPS_PROXY=http://127.0.0.1:4242", f"SSL_CERT_FILE={lab}/sites.crt"):
        assert word in said, word
    monkeypatch.delenv("LABKIT_RKT")
    assert "LABKIT_RKT" not in rkt_by_hand._variables(lab)


STAND_IN = """#!/bin/sh
case "$*" in
    *" version") echo "rkt Version: 1.30.0" ;;
    *) echo "$*" ;;
esac
"""
"""What answers as a real rkt does, as far as it is asked here."""


def test_a_real_rkt_that_is_given_is_the_one_in_the_lab_s_path(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = lab / "real rkt"
    real.write_text(STAND_IN)
    real.chmod(0o755)

    def typed(*words: str) -> list[str]:
        door.write(lab / "bin", rkt_by_hand.data(lab), rkt_by_hand.local(lab), rkt_by_hand._variables(lab))
        path = os.pathsep.join([*by_hand.path(lab), "/usr/bin", "/bin"])
        return subprocess.run(["rkt", *words], env={"PATH": path}, capture_output=True, text=True, check=True).stdout.splitlines()

    monkeypatch.setenv("LABKIT_RKT", str(real))
    assert typed("version") == ["rkt Version: 1.30.0"]
    assert typed("run", "--net=host", "docker://nginx") == [f"--dir={lab}/rkt --local-config={lab}/rkt.d run --net=host docker://nginx"]
    monkeypatch.delenv("LABKIT_RKT")
    assert typed("version")[0] == "labkit.appc: the pod executor of this course, with the command line of rkt"


def test_what_rkt_makes_is_the_lab_s(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ledger.owner()
    monkeypatch.setenv(command.LAB, LAB)
    try:
        with pytest.raises(SystemExit):
            command.main(["version"])
        assert ledger.owner() == LAB
    finally:
        ledger.own(before)


def test_the_acis_are_those_of_the_state_or_of_the_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    sites = tmp_path / "images/aci/sites"
    if not Path("/var/lib/labkit/images/aci/sites").is_dir():
        with pytest.raises(UnsupportedError, match="needs the ACIs of the course"):
            rootfs.acis()
    sites.mkdir(parents=True)
    assert rootfs.acis() == sites
    assert os.fspath(sites).startswith(os.environ["LABKIT_STATE"])
