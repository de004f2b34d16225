"""crio.conf is judged before a daemon reads it: an error names table and key."""

import tomllib
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.runtimes import crio_conf


def ours(directory: Path, default: str = "runc") -> str:
    (directory / "mounts.conf").write_text("# none\n")
    return crio_conf.configuration(directory, {"runc": "/bin/true", "crun": "/bin/sh", "conmon": None}, directory / "cni", default)


def test_what_the_labs_write_keeps_to_the_rules_and_to_their_directory(tmp_path: Path):
    told = crio_conf.validate(ours(tmp_path, "crun"))["crio"]
    assert told["runtime"]["default_runtime"] == "crun"
    assert {name: one["runtime_path"] for name, one in told["runtime"]["runtimes"].items()} == {"runc": "/bin/true", "crun": "/bin/sh"}
    assert told["image"]["image_volumes"] == "mkdir"
    assert (told["runtime"]["pids_limit"], told["runtime"]["log_size_max"]) == (1024, -1)
    inside = ("namespaces_dir", "default_mounts_file", "container_exits_dir")
    places = [told["root"], told["runroot"], told["api"]["listen"], *(told["runtime"][key] for key in inside)]
    assert all(place.startswith(f"{tmp_path}/") for place in places)


def test_what_is_written_is_what_toml_reads():
    tables = {"crio": {"root": '/a "quoted"\\path', "storage_option": ["a", "b"]}, "crio.runtime": {"selinux": False, "pids_limit": 3}}
    told = tomllib.loads(crio_conf.write(tables))["crio"]
    assert told == {**tables["crio"], "runtime": tables["crio.runtime"]}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[crio", "crio.conf is not TOML: "),
        ("[cri]\n", r"\[cri\] is no table of CRI-O"),
        ("crio = 1\n", "crio = 1 must be a table"),
        ('[crio.runtime]\npid_limit = 5\n', r"\[crio.runtime\] has no key 'pid_limit'; remedy: 'pids_limit'\?"),
        ('[crio.runtime]\npids_limit = "many"\n', r"\[crio.runtime\] pids_limit = \"many\": must be a number, -1 or more"),
        ("[crio.runtime]\npids_limit = true\n", "pids_limit = true: must be a number"),
        ("[crio.runtime]\nlog_size_max = 100\n", "log_size_max = 100: must be negative, for no limit, or 8192 or more"),
        ('[crio.runtime]\nlog_level = "loud"\n', "log_level = \"loud\": must be one of fatal, panic"),
        ('[crio.runtime]\nnamespaces_dir = "ns"\n', "namespaces_dir = \"ns\": must be an absolute path"),
        ('[crio.runtime]\ncgroup_manager = "v2"\n', "must be one of cgroupfs, systemd"),
        ('[crio.runtime]\ndefault_runtime = "kata"\n', r"default_runtime = 'kata' has no table below; remedy: runtimes there are: none"),
        ('[crio.runtime.runtimes.runc]\nruntime_path = "/nosuch"\n', r"\[crio.runtime.runtimes.runc\] runtime_path = .*no such program"),
        ('[crio.runtime.runtimes]\nrunc = "/usr/bin/runc"\n', "crio.runtime.runtimes.runc = '/usr/bin/runc' must be a table"),
        ('[crio.image]\nimage_volumes = "copy"\n', r"\[crio.image\] image_volumes = \"copy\": must be one of mkdir, bind, ignore"),
        ('[crio.image]\npause_command = "/pause -v"\n', "pause_command = .*must be one path, without arguments"),
        ('[crio.network]\nplugin_dirs = ["bin"]\n', r"\[crio.network\] plugin_dirs = \[\"bin\"\]: 'bin' must be an absolute path"),
        ('[crio.runtime]\ndefault_mounts_file = "/nosuch"\n', "default_mounts_file = \"/nosuch\": cannot be read: No such file"),
    ],
)
def test_what_cannot_stand_is_refused_with_its_table_and_key(text: str, why: str):
    with pytest.raises(LabError, match=why):
        crio_conf.validate(text)


DRIVER = """[crio.runtime]
cgroup_manager = "{0}"
conmon_cgroup = "{1}"
[crio.runtime.runtimes.runc]
monitor_cgroup = "{2}"
"""


@pytest.mark.parametrize(
    ("driver", "conmon", "monitor", "keys"),
    [
        ("cgroupfs", "pod", "", []),
        ("cgroupfs", "system.slice", "pod", ["crio.runtime conmon_cgroup"]),
        ("cgroupfs", "machine.slice", "machine.slice", ["crio.runtime conmon_cgroup", "crio.runtime.runtimes.runc monitor_cgroup"]),
        ("systemd", "system.slice", "pod", []),
        ("systemd", "conmon", "", ["crio.runtime conmon_cgroup"]),
    ],
)
def test_the_cgroups_of_the_monitors_are_such_as_the_driver_makes(
    driver: str, conmon: str, monitor: str, keys: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(crio_conf, "SYSTEMD", tmp_path)
    found = crio_conf.problems(DRIVER.format(driver, conmon, monitor))
    assert [f"{one.table} {one.key}" for one in found] == keys
    assert all(f"with the cgroup driver {driver} it must be" in one.message for one in found)


def test_the_driver_systemd_is_refused_where_systemd_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(crio_conf, "SYSTEMD", tmp_path / "nosuch")
    with pytest.raises(LabError, match=r'crio.conf: \[crio.runtime\] cgroup_manager = "systemd": systemd does not run here'):
        crio_conf.validate(DRIVER.format("systemd", "system.slice", "pod"))


def test_all_that_cannot_stand_is_told_at_once():
    found = crio_conf.problems('[crio.runtime]\npids_limit = "many"\n[crio.image]\nimage_volumes = "copy"\npause = 1\n[more]\n')
    assert [(one.table, one.key) for one in found] == [
        ("more", ""), ("crio.runtime", "pids_limit"), ("crio.image", "image_volumes"), ("crio.image", "pause"),
    ]  # fmt: skip


@pytest.mark.parametrize(("line", "why"), [("/etc", "'/etc', must be /SOURCE:/TARGET"), ("/nosuch:/mnt", "line 2: there is no /nosuch")])
def test_each_line_of_the_file_of_mounts_is_judged(tmp_path: Path, line: str, why: str):
    file = tmp_path / "mounts.conf"
    file.write_text(f"# mounts\n{line}\n")
    with pytest.raises(LabError, match=why):
        crio_conf.validate(f'[crio.runtime]\ndefault_mounts_file = "{file}"\n')
    file.write_text("/etc:/mnt\n")
    crio_conf.validate(f'[crio.runtime]\ndefault_mounts_file = "{file}"\n')
