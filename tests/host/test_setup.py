"""`make lab` and `make test` on machines where they can, and where they cannot."""

import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROVISION = ROOT / "vagrant/provision"
MACHINE = dict(os.environ)
"""The environment before the tests have a state of their own: what is set up is the machine."""
TOOLS = ("bash", "sh", "make", "uname", "id", "dirname", "awk", "env")


@pytest.fixture
def door() -> Iterator[Path]:
    """Copy the commands to a place that every user can read."""
    with tempfile.TemporaryDirectory(prefix="labkit-door-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        shutil.copy(ROOT / "Makefile", place)
        shutil.copytree(PROVISION, place / "vagrant/provision")
        yield place


def commands(directory: Path, *names: str) -> Path:
    """Make a PATH that has these commands and no other."""
    directory.mkdir()
    for name in names:
        (directory / name).symlink_to(shutil.which(name) or name)
    return directory


def script(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def make(place: Path, *before: str, verb: str = "lab", path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PATH": str(path)} if path else {})}
    environment.pop("MAKEFLAGS", None)
    return subprocess.run([*before, "make", verb], cwd=place, env=environment, capture_output=True, text=True)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Assert exit status 2 and one line, on standard error; return it."""
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("verb", ["lab", "test", "bench", "site", "vm", "test-vm"])
def test_who_is_not_root_is_told_to_use_sudo(door: Path, verb: str) -> None:
    line = refused(make(door, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", verb=verb))
    assert f"make {verb} needs root" in line
    assert f"remedy: sudo make {verb}" in line


def test_where_there_is_no_apt_get_it_says_so(door: Path) -> None:
    line = refused(make(door, path=commands(door / "bin", *TOOLS)))
    assert "apt-get is not in PATH; remedy: run it on Debian 12 or 13" in line


def test_where_the_kernel_is_not_linux_it_says_so(door: Path) -> None:
    path = commands(door / "bin", *TOOLS)
    script(path / "uname", "#!/bin/sh\necho Darwin\n")
    assert "needs a Linux kernel, this is Darwin" in refused(make(door, path=path))


def test_the_set_up_called_directly_refuses_in_the_same_words(door: Path) -> None:
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", door / "vagrant/provision/setup.sh", "lab"]
    assert "needs root" in refused(subprocess.run(argv, capture_output=True, text=True))


def test_make_alone_lists_the_commands(door: Path) -> None:
    listed = make(door, verb="help").stdout
    assert [line.split()[1] for line in listed.splitlines()][:3] == ["help", "lab", "test"]


@pytest.fixture
def steps(door: Path) -> Path:
    """Leave only the frame of the set-up, for steps of the test's own."""
    for step in (door / "vagrant/provision").glob("[0-9]*.sh"):
        step.unlink()
    return door / "vagrant/provision"


def set_up(place: Path, state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([place / "setup.sh", "lab"], env={**os.environ, "LABKIT_STATE": str(state)}, capture_output=True, text=True)


def test_a_step_that_fails_names_its_last_line_and_the_log_and_can_be_run_again(steps: Path, tmp_path: Path) -> None:
    done, broken = tmp_path / "done", tmp_path / "broken"
    broken.touch()
    script(steps / "10-first.sh", f"#!/bin/sh\n[ $1 = do ] && touch {done} && exit\n[ -e {done} ] || echo first things\n")
    fails = f"[ ! -e {broken} ] || {{ echo the disk is full; exit 1; }}"
    script(steps / "20-second.sh", f"#!/bin/sh\n[ $1 = need ] && echo second things && exit\n{fails}\n")
    failed = set_up(steps, tmp_path)
    assert failed.returncode == 1
    assert "first things  done in" in failed.stdout
    assert "second things  failed after" in failed.stdout
    assert failed.stderr == f"set-up stopped: the disk is full (the whole log: {tmp_path}/setup.log)\n"
    broken.unlink()
    again = set_up(steps, tmp_path)
    assert again.returncode == 0
    assert "first things" not in again.stdout
    assert "second things  done in" in again.stdout


def test_a_second_set_up_waits_for_the_first(steps: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    needs = f"[ $1 = need ] && {{ [ -e {tmp_path}/done ] || echo slow; exit; }}"
    script(steps / "10-slow.sh", f"#!/bin/sh\n{needs}\nread line < {gate}; touch {tmp_path}/done\n")
    argv, environment = [steps / "setup.sh", "lab"], {**os.environ, "LABKIT_STATE": str(tmp_path)}
    first = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
    with gate.open("w") as open_gate:  # the first one is in its step now
        second = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert "waiting" in second.stdout.readline()
        open_gate.write("go\n")
    assert "slow  done" in first.communicate(timeout=10)[0]
    assert "slow" not in second.communicate(timeout=10)[0]


def test_a_machine_that_is_set_up_needs_nothing_and_says_nothing() -> None:
    for what in ("lab", "test"):
        subprocess.run([PROVISION / "setup.sh", what], env=MACHINE, check=True, capture_output=True)
        begin = time.monotonic()
        again = subprocess.run([PROVISION / "setup.sh", what], env=MACHINE, check=True, capture_output=True, text=True)
        assert again.stdout == ""
        assert time.monotonic() - begin < 2


def test_an_environment_whose_set_up_was_interrupted_is_completed() -> None:
    stamp = ROOT / ".venv/installed-lab"
    subprocess.run([PROVISION / "setup.sh", "lab"], env=MACHINE, check=True, capture_output=True)
    stamp.unlink()
    again = subprocess.run([PROVISION / "setup.sh", "lab"], env=MACHINE, check=True, capture_output=True, text=True)
    assert "Python environment" in again.stdout
    assert stamp.exists()


def test_what_is_installed_fits_together() -> None:
    checked = subprocess.run([ROOT / ".venv/bin/python", "-m", "pip", "check"], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout.strip()) == (0, "No broken requirements found.")
