"""The configuration of an OCI bundle: read and written without a loss, and each rule that is broken named with field and clause."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabError
from labkit.runtimes import bundle
from labkit.runtimes.conformance import validate

GOOD = {
    "ociVersion": "1.0.2-dev",
    "process": {
        "terminal": True,
        "user": {"uid": 0, "gid": 0, "additionalGids": [5]},
        "args": ["sh"],
        "env": ["PATH=/bin", "EMPTY="],
        "cwd": "/",
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 0, "hard": 1024}],
        "noNewPrivileges": True,
        "oomScoreAdj": 0,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "web",
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, {"destination": "/dev", "type": "tmpfs", "options": ["nosuid"]}],
    "hooks": {"createRuntime": [{"path": "/bin/true", "args": ["true"], "timeout": 5}], "poststop": [{"path": "/bin/true"}]},
    "annotations": {"org.example.note": "kept"},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/blue"}],
        "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
        "devices": [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}],
        "cgroupsPath": "/lab-4.1/runc.web",
        "resources": {"devices": [{"allow": False, "access": "rwm"}], "memory": {"limit": 67108864}, "pids": {"limit": 10}},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]},
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "rootfsPropagation": "slave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
    },
    "org.example.unknown": {"kept": [1, None]},
}

GONE = object()
BROKEN = [
    ("ociVersion", GONE, "is missing", "Specification version: ociVersion"),
    ("ociVersion", "1.0", '"1.0" is not a version in SemVer', "Specification version: ociVersion"),
    ("root", GONE, "is missing", "Root: root is REQUIRED"),
    ("root.path", GONE, "is missing", "Root: path"),
    ("root.path", "", "must not be empty", "Root: path"),
    ("root.readonly", "yes", 'must be true or false, not "yes"', "Root: readonly"),
    ("hostname", 7, "must be a string, not 7", "Hostname"),
    ("process", [], "must be an object, not []", "Process: process"),
    ("process.cwd", GONE, "is missing", "Process: cwd (string, REQUIRED)"),
    ("process.cwd", "root", '"root" is not an absolute path', "Process: cwd (string, REQUIRED) MUST be an absolute path"),
    ("process.args", GONE, "is missing", "Process: args"),
    ("process.args", [], "must not be empty", "at least one entry is REQUIRED"),
    ("process.args", "sh", 'must be an array, not "sh"', "Process: args"),
    ("process.args[0]", 1, "must be a string, not 1", "Process: args"),
    ("process.env[0]", "PATH", '"PATH" is not of the form NAME=value', "Process: env"),
    ("process.user", GONE, "is missing", "User: user"),
    ("process.user.uid", GONE, "is missing", "User: uid (int, REQUIRED)"),
    ("process.user.gid", "root", 'must be an integer, not "root"', "User: gid"),
    ("process.user.uid", -1, "-1 must be at least 0", "User: uid"),
    ("process.capabilities.effective[0]", "KILL", '"KILL" is not the name of a capability', "capabilities(7)"),
    ("process.rlimits[0].type", "NOFILE", '"NOFILE" is none of RLIMIT_AS', "getrlimit(2)"),
    ("process.rlimits[0].hard", GONE, "is missing", "rlimits: hard (uint64, REQUIRED)"),
    ("process.rlimits[1].type", "RLIMIT_NOFILE", "RLIMIT_NOFILE is there already", "the runtime MUST generate an error"),
    ("process.oomScoreAdj", 1001, "1001 must be at most 1000", "oomScoreAdj"),
    ("mounts[0].destination", GONE, "is missing", "Mounts: destination (string, REQUIRED)"),
    ("mounts[0].destination", "proc", '"proc" is not an absolute path', "Mounts: destination"),
    ("mounts[1].options", "nosuid", 'must be an array, not "nosuid"', "Mounts: options"),
    ("mounts[0].uidMappings", [{"containerID": 0, "hostID": 1, "size": 1}], None, None),
    ("hooks.createRuntime[0].path", GONE, "is missing", "Hooks: path (string, REQUIRED)"),
    ("hooks.createRuntime[0].path", "true", '"true" is not an absolute path', "Hooks: path (string, REQUIRED) MUST be absolute"),
    ("hooks.createRuntime[0].timeout", 0, "0 must be greater than 0", "timeout (int, OPTIONAL) MUST be greater than zero"),
    ("annotations.org", 1, "must be a string, not 1", "Annotations"),
    ("linux.namespaces[0].type", "net", '"net" is none of pid, network', "Namespaces: type (string, REQUIRED)"),
    ("linux.namespaces[1].type", "pid", "pid is there already", "Namespaces: namespaces with two entries of the same type"),
    ("linux.namespaces[1].path", "run/netns/blue", "is not an absolute path", "Namespaces: path"),
    ("linux.uidMappings[0].size", GONE, "is missing", "User namespace mappings: size (uint32, REQUIRED)"),
    ("linux.devices[0].major", GONE, "is missing", "Devices: major (int64, REQUIRED unless type is p)"),
    ("linux.devices[0].type", "x", '"x" is none of c, b, u, p', "Devices: type"),
    ("linux.cgroupsPath", 1, "must be a string, not 1", "Cgroups Path"),
    ("linux.resources.devices[0].allow", GONE, "is missing", "Allowed Device list: allow (boolean, REQUIRED)"),
    ("linux.resources.memory.limit", "64M", 'must be an integer, not "64M"', "Memory: limit (int64, OPTIONAL)"),
    ("linux.resources.pids.limit", GONE, "is missing", "PIDs: limit (int64, REQUIRED)"),
    ("linux.seccomp.defaultAction", GONE, "is missing", "Seccomp: defaultAction (string, REQUIRED)"),
    ("linux.seccomp.syscalls[0].names", [], "must not be empty", "names (array of strings, REQUIRED) MUST contain at least one entry"),
    ("linux.sysctl.vm", 1, "must be a string, not 1", "Sysctl"),
    ("linux.rootfsPropagation", "rslave", '"rslave" is none of slave, private', "Rootfs Mount Propagation"),
    ("linux.maskedPaths[0]", "kcore", '"kcore" is not an absolute path', "Masked Paths"),
    ("linux.readonlyPaths[0]", "sys", '"sys" is not an absolute path', "Readonly Paths"),
]


def changed(field: str, value: object) -> dict[str, object]:
    """Return a good configuration with one field of another value, or without it."""
    record = copy.deepcopy(GOOD)
    at = record
    *way, last = [int(part) if part.isdigit() else part for part in field.replace("[", ".").replace("]", "").split(".")]
    for part in way:
        if isinstance(at, list) and part == len(at):
            at.append({"type": "RLIMIT_CORE", "soft": 0, "hard": 0})
        at = at[part]
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    return record


def test_a_configuration_that_keeps_to_the_specification_has_no_problem():
    assert validate(GOOD) == ()
    assert validate({"ociVersion": "1.2.0", "root": {"path": "rootfs"}}) == ()


@pytest.mark.parametrize(("field", "value", "message", "clause"), BROKEN, ids=lambda part: str(part)[:40])
def test_each_broken_rule_is_named_with_its_field_and_its_clause(field: str, value: object, message: str | None, clause: str | None):
    problems = validate(changed(field, value))
    assert len(problems) == 1
    if message is None:  # half of a pair: the other half is the problem
        assert problems[0].field == "mounts[0].gidMappings"
        assert "uidMappings MUST be specified along with gidMappings" in problems[0].clause
        return
    assert problems[0].field == field
    assert message in problems[0].message
    assert problems[0].clause.startswith("runtime-spec config")
    assert clause in problems[0].clause


def test_several_problems_are_all_named_in_the_order_of_their_fields():
    record = changed("process.cwd", "root")
    del record["root"], record["process"]["user"]["uid"]
    assert [problem.field for problem in validate(record)] == ["process.cwd", "process.user.uid", "root"]
    assert str(validate(record)[0]).startswith('process.cwd: "root" is not an absolute path (runtime-spec config.md, Process: cwd')


def test_what_the_fields_point_to_is_looked_at_where_the_bundle_is_given(tmp_path: Path):
    record = changed("hooks.poststop[0].path", "/nonexistent/hook")
    assert validate(record) == ()
    assert [(p.field, p.message) for p in validate(record, tmp_path)] == [
        ("hooks.poststop[0].path", "there is no /nonexistent/hook"),
        ("root.path", f"there is no {tmp_path}/rootfs"),
    ]
    (tmp_path / "rootfs").touch()
    assert f"{tmp_path}/rootfs is not a directory" in [problem.message for problem in validate(record, tmp_path)]


def test_a_configuration_is_read_and_written_without_a_loss(tmp_path: Path):
    config = bundle.Config.parse(GOOD)
    assert config.record() == GOOD
    bundle.write(tmp_path, config)
    assert bundle.read(tmp_path) == config
    assert json.loads((tmp_path / "config.json").read_text()) == GOOD
    assert config.process.rlimits == (bundle.Rlimit("RLIMIT_NOFILE", 0, 1024),)
    assert config.linux.namespaces[1] == bundle.Namespace("network", "/run/netns/blue")
    assert config.linux.uid_mappings == (bundle.IdMapping(0, 100000, 65536),)
    assert config.hooks.create_runtime[0].timeout == 5
    assert config.more == {"org.example.unknown": {"kept": [1, None]}}
    assert config.linux.more == {"devices": GOOD["linux"]["devices"]}


def test_what_breaks_the_specification_is_not_read(tmp_path: Path):
    for text, message in {
        json.dumps(changed("process.cwd", "root")): "is not an absolute path; cause: runtime-spec config.md, Process: cwd",
        "{": "config.json: not JSON",
        "[]": "config.json: must be a JSON object",
    }.items():
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(LabError) as error:
            bundle.read(tmp_path)
        assert message in str(error.value)
    with pytest.raises(LabError, match=r"is no OCI bundle; cause: .*config\.json: No such file or directory; remedy: runc spec writes one"):
        bundle.read(tmp_path / "nothing")


ATOMS = st.sampled_from([None, True, 0, -1, "", "/", "x"])
NAMES = st.sampled_from(["path", "type", "devices", "namespaces", "rlimits", "createRuntime", "uidMappings", "x"])
JSON = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=5)


@given(record=st.dictionaries(st.sampled_from(sorted(GOOD)), JSON))
@settings(max_examples=50, deadline=None)
def test_no_json_is_too_odd_to_be_judged(record: dict[str, object]):
    for problem in validate(record):
        assert problem.field
        assert problem.message
        assert problem.clause.startswith("runtime-spec config")
