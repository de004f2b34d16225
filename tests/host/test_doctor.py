"""The doctor: what it measures here, and what it says on machines that lack something."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import jsonschema
import pytest

from labkit.errors import LabError
from labkit.host import measures
from labkit.host.doctor import ALWAYS, CHECKS, examine
from labkit.host.findings import Finding, Report
from labkit.host.measures import Machine
from labkit.kernel.commands import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/doctor.schema.json").read_text())


def labkit(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [ROOT / ".venv/bin/labkit", *argv]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


def found(check: str, machine: Machine) -> Finding:
    return next(finding for finding in examine([check], machine=machine).findings if finding.id == check)


def path_without(directory: Path, *names: str) -> str:
    """Make a PATH with every command that a check looks for, except these."""
    directory.mkdir()
    for name in {*PACKAGES, "true", "sh"} - set(names):
        if where := shutil.which(name):
            (directory / name).symlink_to(where)
    return str(directory)


def test_nothing_is_red_on_a_machine_that_was_set_up() -> None:
    done = labkit("doctor", LABKIT_STATE="")  # the machine's own, where the set-up has brought the services up
    assert [line for line in done.stdout.splitlines() if line.startswith("red")] == []
    assert (done.returncode, done.stderr) == (0, "")


def test_the_text_fits_80_columns_and_names_each_check_once() -> None:
    text = examine().text()
    assert max(map(len, text.splitlines())) <= 80
    named = [line.split()[1] for line in text.splitlines() if line.startswith(("green ", "amber ", "red "))]
    assert named == [check.id for check in CHECKS]


@pytest.mark.parametrize("lab", ["", "2.1", "2.2", "2.3", "3.1", "3.2", "3.3", "4.1"])
def test_the_json_keeps_to_its_schema(lab: str) -> None:
    done = labkit("doctor", *filter(None, [lab]), "--json")
    report = json.loads(done.stdout)
    jsonschema.validate(report, SCHEMA)
    assert report["lab"] == (lab or None)


def test_a_lab_is_asked_only_for_what_it_needs() -> None:
    checks = {check["id"] for check in json.loads(labkit("doctor", "2.1", "--json").stdout)["checks"]}
    assert {"freezer", "memory", "lscgroup", *ALWAYS} <= checks
    assert "overlay" not in checks


@pytest.mark.parametrize("tool", ["lscgroup", "ip", "ping", "unshare", "nft"])
def test_a_tool_that_is_not_in_path_is_red_with_its_package(tool: str, tmp_path: Path) -> None:
    finding = found(tool, Machine(path=path_without(tmp_path / "bin", tool)))
    assert finding.colour == "red"
    assert finding.cause == f"no command {tool} in PATH"
    assert finding.remedy == f"apt-get install {PACKAGES[tool]}"


def test_the_command_fails_where_something_is_red(tmp_path: Path) -> None:
    done = labkit("doctor", "2.1", PATH=path_without(tmp_path / "bin", "lscgroup"))
    assert done.returncode == 1
    assert "remedy: apt-get install cgroup-tools" in done.stdout


def test_mergerfs_in_the_place_of_unionfs_is_amber_fuse_overlayfs_is_as_good_and_none_of_them_is_red(tmp_path: Path) -> None:
    assert found("unionfs", Machine(path=path_without(tmp_path / "a", "unionfs"))).colour == "green"
    assert found("unionfs", Machine(path=path_without(tmp_path / "b", "unionfs", "fuse-overlayfs"))).colour == "amber"
    assert found("unionfs", Machine(path=path_without(tmp_path / "c", "unionfs", "fuse-overlayfs", "mergerfs"))).colour == "red"


def test_who_is_not_root_is_told_so(tmp_path: Path) -> None:
    finding = found("root", fake_proc(tmp_path, **{"self/status": "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n"}))
    assert (finding.colour, finding.measured, finding.remedy) == ("red", "effective user id 1000", "sudo labkit doctor")


def fake_proc(directory: Path, **files: str) -> Machine:
    """Lay out a procfs with the real files of this machine, some of them replaced."""
    proc = directory / "proc"
    (proc / "self/ns").mkdir(parents=True)
    for name in ("self/status", "self/mountinfo", "cgroups", "filesystems", "sys/kernel/osrelease", "sys/user/max_user_namespaces"):
        (proc / name).parent.mkdir(parents=True, exist_ok=True)
        (proc / name).write_text(files.get(name) or Path("/proc", name).read_text())
    for kind in files.get("kinds", " ".join(measures.KINDS)).split():
        (proc / "self/ns" / kind).touch()
    return Machine(proc=proc)


def test_an_old_kernel_is_amber(tmp_path: Path) -> None:
    finding = found("kernel", fake_proc(tmp_path, **{"sys/kernel/osrelease": "5.10.0-28-amd64\n"}))
    assert (finding.colour, finding.cause) == ("amber", "cgroup.kill came with 5.14: processes are killed one by one")


def test_a_missing_capability_is_named(tmp_path: Path) -> None:
    finding = found("capabilities", fake_proc(tmp_path, **{"self/status": "Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n"}))
    assert finding.colour == "red"
    assert finding.cause is not None
    assert "CAP_SYS_ADMIN" in finding.cause


def test_a_controller_that_was_disabled_at_boot_says_how_to_enable_it(tmp_path: Path) -> None:
    v2 = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\n"
    finding = found("memory", fake_proc(tmp_path, cgroups=table, **{"self/mountinfo": v2}))
    assert finding.colour == "red"
    assert finding.remedy == "boot without cgroup_disable=memory"


def test_a_machine_without_cgroups_is_red(tmp_path: Path) -> None:
    finding = found("cgroups", fake_proc(tmp_path, **{"self/mountinfo": "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n"}))
    assert (finding.colour, finding.measured) == ("red", "no cgroup file system is mounted")


def test_a_kernel_without_time_namespaces_is_red(tmp_path: Path) -> None:
    finding = found("namespaces", fake_proc(tmp_path, kinds="cgroup ipc mnt net pid user uts"))
    assert finding.cause == "/proc/self/ns has no time"


def test_user_namespaces_forbidden_by_the_limit_are_red_with_the_sysctl(tmp_path: Path) -> None:
    finding = found("userns", fake_proc(tmp_path, **{"sys/user/max_user_namespaces": "0\n"}))
    assert finding.remedy == "sysctl -w user.max_user_namespaces=10000"


def test_overlay_as_a_module_counts_and_none_is_red(tmp_path: Path) -> None:
    machine = replace(fake_proc(tmp_path, filesystems="\text4\n"), modules=tmp_path / "modules")
    assert found("overlay", machine).colour == "red"
    directory = machine.modules / machine.release()
    directory.mkdir(parents=True)
    (directory / "modules.dep").write_text("kernel/fs/overlayfs/overlay.ko.xz:\n")
    assert found("overlay", machine).colour == "green"


def test_btrfs_needs_a_kernel_that_has_it_and_the_command_that_makes_one(tmp_path: Path) -> None:
    machine = replace(fake_proc(tmp_path, filesystems="\text4\n"), modules=tmp_path / "modules")
    assert found("btrfs", machine).cause == "neither in /proc/filesystems nor a module"
    built_in = fake_proc(tmp_path / "in", filesystems="\tbtrfs\n")
    assert found("btrfs", built_in).colour == "green"
    assert found("btrfs", replace(built_in, path=str(tmp_path))).remedy == "apt-get install btrfs-progs"


def test_no_fuse_device_is_red_with_the_kernels_answer(tmp_path: Path) -> None:
    finding = found("fuse", Machine(dev=tmp_path))
    assert (finding.colour, finding.cause) == ("red", "No such file or directory")


def test_a_report_is_as_bad_as_its_worst_finding() -> None:
    good, half, bad = Finding("green", ""), Finding("amber", "", "x"), Finding("red", "", "x")
    assert [Report("", tuple(some)).colour for some in ([good], [good, half], [bad, half])] == ["green", "amber", "red"]


@pytest.mark.parametrize("lab", ["2.1", "2.2", "2.3", "3.1", "3.2"])
def test_what_a_lab_needs_is_a_check_of_its_own(lab: str) -> None:
    """The name of a command would do as well, but says less than a check with a fall-back."""
    needs = import_module(f"labkit.course.lab_{lab.replace('.', '_')}").NEEDS
    assert set(needs) <= {check.id for check in CHECKS}


def test_an_unknown_need_is_refused() -> None:
    with pytest.raises(LabError, match="no check 'teleport'"):
        examine(["teleport"])


def test_everything_that_is_not_green_says_why() -> None:
    silent = [finding.id for finding in examine().findings if finding.colour != "green" and not finding.cause]
    assert silent == []
