"""What keeps a user from running containers: each fault made on purpose, in a copy, and named by the doctor."""

import os
import shutil
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.host import account, containers, rootfs
from labkit.host.account import Account
from labkit.host.findings import Finding
from labkit.host.measures import Machine

ROOT = Path(__file__).resolve().parents[2]
STEP = ROOT / "vagrant/provision/60-rootfs.sh"
TOOLS = ("lxc-start", "newuidmap", "newgidmap", "systemd-nspawn")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Copy what the checks read of a machine on which all is well."""
    for name in ("etc/lxc", "sys/class/net/lxcbr0", "bin", "run/systemd/system"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("subuid", "subgid"):
        line = next(line for line in Path("/etc", name).read_text().splitlines() if line.startswith(account.STUDENT))
        (tmp_path / "etc" / name).write_text(f"somebody:100000:65536\n{line}\n")
    (tmp_path / "etc/lxc/lxc-usernet").write_text(f"{account.STUDENT} veth lxcbr0 10\n")
    for name in TOOLS:
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    return Machine(etc=tmp_path / "etc", sys=tmp_path / "sys", run=tmp_path / "run", path=str(tmp_path / "bin"))


@pytest.fixture
def student() -> Account:
    return account.find()


def as_user(machine: Machine) -> Finding:
    return containers.lxc_unprivileged(machine)


def test_where_all_is_well_it_is_green(machine: Machine, student: Account) -> None:
    finding = as_user(machine)
    assert finding.colour == "green", finding
    assert f"root inside is {student.subuid[0]} outside" in finding.measured
    assert containers.lxc(machine).colour == "green"
    assert containers.nspawn(machine).colour == "green"
    assert containers.packed(machine).colour == "green"


def test_a_missing_newuidmap_is_named_with_its_package(machine: Machine) -> None:
    Path(machine.path, "newuidmap").unlink()
    finding = as_user(machine)
    assert (finding.colour, finding.cause, finding.remedy) == ("red", "no command newuidmap in PATH", "apt-get install uidmap")


def test_a_newuidmap_without_its_rights_is_named(machine: Machine) -> None:
    program = Path(machine.path, "newuidmap")
    original = os.path.realpath(program)
    program.unlink()
    shutil.copyfile(original, program)
    program.chmod(0o755)
    finding = as_user(machine)
    assert (finding.colour, finding.remedy) == ("red", f"chmod u+s {program}")
    program.chmod(0o4755)
    assert as_user(machine).colour == "green"


@pytest.mark.parametrize("file", ["subuid", "subgid"])
def test_too_few_ids_or_those_of_another_are_named(machine: Machine, student: Account, file: str) -> None:
    ids = student.subuid if file == "subuid" else student.subgid
    place = machine.etc / file
    place.write_text("")
    assert as_user(machine).cause == f"needs 65536 ids for labkit-student in /etc/{file}; found no line"
    place.write_text(f"{student.name}:{ids[0]}:1000\n")
    assert as_user(machine).cause == f"needs 65536 ids for labkit-student in /etc/{file}; found 1000"
    place.write_text(f"somebody:{ids[0] + 65535}:65536\n{student.name}:{ids[0]}:65536\n")
    assert as_user(machine).cause == f"{place} gives ids of labkit-student to somebody too"


def test_a_home_directory_without_x_is_named_wherever_it_is_on_the_way(machine: Machine, student: Account) -> None:
    above = Path("/var/tmp/labkit-test-home")
    home = above / "a/b"
    home.mkdir(parents=True)
    try:
        away = replace(student, home=home)
        assert list(containers.faults_of(away, machine)) == []
        for place in (home, above / "a"):
            place.chmod(0o700)
            causes = [fault.cause for fault in containers.faults_of(away, machine)]
            assert causes == [f"{place} has no x for others: root of its containers is one of them"]
            place.chmod(0o755)
    finally:
        shutil.rmtree(above)


def test_without_a_bridge_or_the_leave_to_use_it_it_is_amber(machine: Machine) -> None:
    (machine.etc / "lxc/lxc-usernet").write_text("somebody veth lxcbr0 10\n")
    finding = as_user(machine)
    assert finding.colour == "amber"
    assert finding.remedy == f"echo labkit-student veth lxcbr0 10 >> {machine.etc}/lxc/lxc-usernet"
    (machine.sys / "class/net/lxcbr0").rmdir()
    for finding in (as_user(machine), containers.lxc(machine)):
        assert (finding.colour, finding.remedy) == ("amber", "labkit up lxc-bridge")


def test_a_cgroup_that_was_not_delegated_is_named(machine: Machine, student: Account, tmp_path: Path) -> None:
    directory = tmp_path / "cgroup"
    directory.mkdir()
    causes = [fault.cause for fault in containers.faults_of(student, machine, cgroups=[directory])]
    assert causes == [f"the cgroup {directory} is not delegated: it belongs to user id 0"]
    os.chown(directory, student.uid, student.gid)
    assert list(containers.faults_of(student, machine, cgroups=[directory])) == []


def test_apparmor_without_its_parser_is_red(machine: Machine) -> None:
    enabled = machine.sys / "module/apparmor/parameters/enabled"
    enabled.parent.mkdir(parents=True)
    enabled.write_text("Y\n")
    assert containers.lxc(machine).remedy == "apt-get install apparmor"
    Path(machine.path, "apparmor_parser").symlink_to("/bin/true")
    assert containers.lxc(machine).colour == "green"


def test_without_systemd_nspawn_is_amber(machine: Machine) -> None:
    (machine.run / "systemd/system").rmdir()
    finding = containers.nspawn(machine)
    assert finding.colour == "amber"
    assert "systemd does not run here" in str(finding.cause)


def test_what_was_not_packed_is_red_with_the_remedy(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_ROOTFS", str(tmp_path))
    finding = containers.packed(machine)
    assert (finding.colour, finding.remedy) == ("red", "make lab")


@pytest.fixture
def packing(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Return the environment of a set-up that packs into an empty place, with a mmdebstrap of the test's own."""
    tool = tmp_path / "bin/mmdebstrap"
    tool.parent.mkdir()
    environment = {**os.environ, "LABKIT_ROOTFS": str(tmp_path / "rootfs"), "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    return environment, tool


def step(word: str, environment: dict[str, str], what: str = "lab") -> subprocess.CompletedProcess[str]:
    """Run one step of the set-up, in a process group of its own: the tool in it ends the whole group."""
    return subprocess.run([STEP, word, what], env=environment, capture_output=True, text=True, start_new_session=True)


def test_a_root_file_system_that_was_half_made_is_never_used(packing: tuple[dict[str, str], Path]) -> None:
    environment, tool = packing
    place = Path(environment["LABKIT_ROOTFS"])
    output = 'for word; do case $word in *.tar) echo half > "$word" ;; esac; done'
    tool.write_text(f"#!/bin/sh\n{output}\nkill -KILL 0\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    assert step("do", environment).returncode != 0
    assert "a root file system of Debian" in step("need", environment).stdout
    assert not (place / "debian.tar.xz").exists()
    tool.write_text(f"#!/bin/sh\n{output}\nexit 1\n")
    assert step("do", environment).returncode != 0
    assert not (place / "debian.tar.xz").exists()
    tool.write_text(f"#!/bin/sh\n{output}\n")
    assert step("do", environment).returncode == 0
    assert step("need", environment).stdout == ""
    assert sorted(entry.name for entry in place.iterdir()) == ["debian.tar.xz", "key", "metadata.tar.xz"]


def test_the_machine_that_only_starts_a_virtual_one_needs_no_root_file_system(packing: tuple[dict[str, str], Path]) -> None:
    assert step("need", packing[0], "vm").stdout == ""
    assert step("need", packing[0], "box").stdout != ""


def test_the_packed_release_is_another_than_this_machine_s(tmp_path: Path) -> None:
    subprocess.run(["tar", "-xJf", rootfs.tarball(), "-C", tmp_path, "./usr/lib/os-release"], check=True)
    inside = (tmp_path / "usr/lib/os-release").read_text()
    here = Path("/etc/os-release").read_text()
    assert "ID=debian" in inside
    assert [line for line in inside.splitlines() if line.startswith("VERSION_ID=")] != [
        line for line in here.splitlines() if line.startswith("VERSION_ID=")
    ]
