"""X-rays of a recorded machine: an LXC container with mapped ids, a bare unshare, their parents, a kernel thread."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import jsonschema
import pytest

from labkit.errors import LabError
from labkit.kernel import xray
from labkit.kernel.credentials import Ids
from labkit.kernel.state import LinkState, MountState, RouteState
from labkit.kernel.xray import Machine, NotRead, Xray
from labkit.kernel.xray.cgroups import cgroups_of
from labkit.kernel.xray.containers import containers
from labkit.kernel.xray.membership import id_maps, inside, memberships
from labkit.kernel.xray.network import docker_proxy
from labkit.kernel.xray.records import (
    CgroupPlace,
    Cgroups,
    IdMaps,
    Limit,
    Member,
    Membership,
    Network,
    PortMapping,
    Root,
    Security,
    Sign,
    Tree,
    Way,
)
from labkit.kernel.xray.root import places
from labkit.kernel.xray.security import security_of
from labkit.kernel.xray.tree import signs, tree_of
from labkit.show import to_json, xray_page, xray_table, xray_view
from labkit.show import xray_words as words

DATA = Path(__file__).parents[1] / "data"
LXC, MONITOR, SLEEP, UNSHARE = 4711, 4710, 812, 811
SCHEMA = json.loads((DATA.parents[1] / "docs/xray.schema.json").read_text())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    for name, content in json.loads((DATA / "xray.json").read_text()).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            path.symlink_to(content[3:])
        else:
            path.write_text(content)
    return Machine(tmp_path, tmp_path)


def test_each_namespace_is_compared_with_pid_1_and_with_the_parent(machine):
    found = {each.kind: each for each in memberships(machine.members[LXC], machine)}
    assert machine.reference == 1
    assert [kind for kind, each in found.items() if each.own] == ["mount", "uts", "ipc", "net", "pid", "user", "cgroup"]
    assert found["time"].own is False
    assert not found["mount"].with_parent
    assert {each.kind: each.with_parent for each in memberships(machine.members[SLEEP], machine)}["net"] is True


def test_the_first_process_of_a_pid_namespace_to_come_is_no_member_of_it(machine):
    found = {each.kind: each for each in memberships(machine.members[UNSHARE], machine)}
    own = next(each.inode for each in memberships(machine.members[SLEEP], machine) if each.kind == "pid")
    assert found["pid"].own is False
    assert found["pid"].for_children == own


def test_a_parent_that_cannot_be_read_is_not_known(machine):
    found = memberships(replace(machine.members[LXC], ppid=99), machine)
    assert {each.with_parent for each in found} == {None}


def test_the_numbers_of_a_process_in_each_pid_namespace(machine):
    assert machine.members[LXC].pids[-1] == 1
    assert len(machine.members[LXC].pids) == 2
    assert machine.members[2].kind == "kernel thread"


def test_the_tree_of_a_pid_namespace_and_its_parents_outside(machine):
    tree = tree_of(machine.members[LXC], id_maps(LXC, machine), machine)
    assert tree.by == "pid namespace"
    assert [(each.pid, each.inside, each.uid, each.uid_inside) for each in tree.members] == [(LXC, 1, 100000, 0)]
    assert [each.comm for each in tree.outside] == ["lxc-start", "systemd"]


def test_without_a_pid_namespace_or_a_cgroup_its_descendants_belong_together(machine):
    tree = tree_of(machine.members[UNSHARE], None, machine)
    assert (tree.by, [each.pid for each in tree.members]) == ("descendants", [UNSHARE, SLEEP])


def test_the_traces_are_told_as_they_were_read(machine):
    paths = [place.path for place in cgroups_of(LXC, machine).places]
    found = signs(machine.members[LXC], paths, machine.ancestors(LXC), machine)
    assert found == (
        Sign("cgroup", "/lxc.payload.rec"),
        Sign("environment", "container=lxc"),
        Sign("parent", "[lxc monitor] /srv/xray/lxc rec"),
    )


def test_the_ids_of_a_user_namespace(machine):
    maps = id_maps(LXC, machine)
    assert maps == IdMaps(((0, 100000, 65536),), ((0, 100000, 65536),), "allow")
    assert not maps.identity
    assert id_maps(SLEEP, machine).identity
    assert [inside(uid, maps.uid) for uid in (100000, 165535, 165536, 0)] == [0, 65535, None, None]


def test_capabilities_seccomp_and_limits(machine):
    found = security_of(LXC, machine)
    assert found.known[0] == "CAP_CHOWN"
    assert (len(found.known), found.dropped()) == (41, ())
    assert security_of(SLEEP, machine).dropped() == ("CAP_SYS_RESOURCE",)
    assert (found.seccomp, found.filters, found.no_new_privs, found.label) == ("disabled", 0, False, "")
    assert found.rlimits["RLIMIT_NOFILE"][0] == 20000


def test_a_process_that_is_not_there_is_one_line(machine):
    with pytest.raises(LabError, match=r"^there is no process 4194305$"):
        xray.xray(4194305, machine=machine)


CGROUPS = {"v2": "0::/lab-2.1/mycgroup\n", "hybrid": "7:pids:/lab-2.1/mycgroup\n4:memory:/lab-2.1/mycgroup\n0::/\n"}


@pytest.mark.parametrize(("mode", "lines"), CGROUPS.items(), ids=CGROUPS)
def test_limits_are_told_under_their_names_of_v2_whatever_the_machine_has(tmp_path, mode, lines):
    shutil.copytree(DATA / "cgroups" / mode, tmp_path / mode)
    (tmp_path / mode / "proc/4711").mkdir()
    (tmp_path / mode / "proc/4711/cgroup").write_text(lines)
    found = cgroups_of(4711, Machine(tmp_path / mode / "proc", tmp_path / mode))
    limits = {limit.key: (limit.value, limit.cgroup) for limit in found.limits}
    assert limits["memory.max"] == (64 << 20, "/lab-2.1/mycgroup")
    assert limits["pids.max"] == {"v2": (20, "/lab-2.1/mycgroup"), "hybrid": ("max", "")}[mode]
    assert all(limit.used is not None for limit in found.limits if limit.key in ("memory.max", "pids.max"))


def test_the_tightest_limit_counts_with_the_cgroup_that_sets_it(tmp_path):
    shutil.copytree(DATA / "cgroups/v2", tmp_path / "v2")
    (tmp_path / "v2/sys/fs/cgroup/lab-2.1/memory.max").write_text("4096\n")
    (tmp_path / "v2/proc/4711").mkdir()
    (tmp_path / "v2/proc/4711/cgroup").write_text("0::/lab-2.1/mycgroup\n")
    found = cgroups_of(4711, Machine(tmp_path / "v2/proc", tmp_path / "v2"))
    assert next((limit.value, limit.cgroup) for limit in found.limits if limit.key == "memory.max") == (4096, "/lab-2.1")


def test_a_cgroup_out_of_sight_has_no_directory(machine):
    found = cgroups_of(LXC, machine)
    assert {place.directory for place in found.places} == {None}
    assert found.limits == ()


POD = "f20ade66-1b2c-4d5e-8f90-0123456789ab"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/docker/" + "ab" * 32, ["ab" * 32]),
        ("/system.slice/docker-" + "ab" * 32 + ".scope", ["ab" * 32]),
        ("/machine.slice/libpod-" + "cd" * 32 + ".scope/container", ["cd" * 32]),
        ("/lab-4.3/docker.web/" + "cd" * 32, ["web", "cd" * 32]),
        ("/lab-4.7/podman.web/libpod-" + "cd" * 32, ["web", "cd" * 32]),
        ("/lab-4.7/podman-rootless.web/run/" + "cd" * 32, ["web", "cd" * 32]),
        ("/lab-4.7/podman.web/conmon", []),
        ("/libpod_parent/libpod-" + "cd" * 32, ["cd" * 32]),
        ("/kubepods/burstable/pod1/" + "ef" * 32, ["ef" * 32]),
        ("/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + "ef" * 32 + ".scope", ["ef" * 32]),
        ("/lxc.payload.web/system.slice", ["web"]),
        ("/machine.slice/machine-my\\x2dbox.scope/payload", ["my-box"]),
        ("/lab-2.1/processes/clock", ["clock"]),
        ("/lab-6.1/runc/busybox", ["busybox"]),
        ("/lab-6.1/runc/.typed", []),
        (f"/lab-8.2/rkt-{POD}/nginx", [f"{POD[:8]}/nginx", "nginx"]),
        (f"/lab-8.2/rkt-{POD}/_stage1", [POD, POD[:8]]),
        ("/user.slice/user-0.slice/session-3.scope", []),
        ("/", []),
    ],
)
def test_a_container_is_named_by_its_cgroup(machine, path, names):
    (Path(machine.proc) / f"{SLEEP}/cgroup").write_text(f"0::{path}\n")
    found = next(each for each in containers(machine) if each.pid == SLEEP)
    assert list(found.names) == names


def test_a_container_is_named_by_what_its_monitor_was_told(machine):
    found = {each.pid: each.names for each in containers(machine)}
    assert found == {LXC: ("rec",), SLEEP: ()}
    (Path(machine.proc) / f"{UNSHARE}/cmdline").write_text("/usr/bin/conmon\0--api-version\x001\0-c\0" + "ab" * 32 + "\0-n\0web\0")
    found = next(each for each in containers(Machine(machine.proc)) if each.pid == SLEEP)
    assert found.names == ("web", "ab" * 32)
    assert found.is_called("web")
    assert found.is_called("abab")
    assert not found.is_called("aba")
    assert not found.is_called("we")


def test_a_docker_proxy_says_what_it_maps():
    line = "docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.17.0.2 -container-port 80"
    member = Member(5, 1, (5,), 0, "docker-proxy", tuple(line.split()))
    assert docker_proxy(member) == PortMapping("tcp", "0.0.0.0", "8080", "172.17.0.2", "80", "docker-proxy (pid 5)")
    assert docker_proxy(replace(member, argv=("docker-proxy", "-proto", "tcp"))) is None


def mount(number, root, point, device="8:1"):
    return MountState(number, 1, device, root, point, ("rw",), (), "ext4", "/dev/sda1", ("rw",))


def test_a_bind_mount_is_found_where_the_host_has_its_directory():
    host = [mount(1, "/", "/"), mount(2, "/", "/data", "8:2"), mount(3, "/srv/a", "/mnt"), mount(4, "/srv/ab", "/other")]
    assert places(mount(9, "/srv/a/rootfs", "/"), host) == ["/srv/a/rootfs", "/mnt/rootfs"]
    assert places(mount(9, "/x", "/", "8:2"), host) == ["/data/x"]
    assert places(mount(9, "/", "/", "8:3"), host) == []


ALL = tuple(f"CAP_{number}" for number in range(41))
INNER = Member(4711, 4710, (4711, 1), 100000, "nginx", ("nginx", "-g", "daemon off;"), "S", 5, 0, 4711, 1, 0)
WORKER = replace(INNER, pid=4712, ppid=4711, pids=(4712, 7), inside=7, uid=100033, uid_inside=33, argv=("nginx: worker",))
SHIM = Member(4710, 1, (4710,), 0, "conmon", ("conmon", "-n", "web"), "S", 4)
KINDS = ("mount", "uts", "ipc", "net", "pid", "user", "cgroup", "time")
WEB = Xray(
    name="web",
    process=INNER,
    reference=1,
    hostname="web",
    namespaces=tuple(
        Membership(kind, 4026532000 + number, own=kind != "time", with_parent=kind == "time", owner=4026531837)
        for number, kind in enumerate(KINDS)
    ),
    cgroups=Cgroups(
        (CgroupPlace("", "/machine.slice/libpod-x.scope", "/sys/fs/cgroup/machine.slice/libpod-x.scope"),),
        (
            Limit("memory.max", 64 << 20, "/machine.slice", 24 << 20),
            Limit("pids.max", "max", "", 2),
            Limit("cpu.max", "20000 100000", "/machine.slice/libpod-x.scope"),
        ),
        1_500_000,
        frozen=False,
    ),
    root=Root(
        "/",
        same=False,
        mount=MountState(9, 1, "0:50", "/", "/", ("ro",), ("master:2",), "overlay", "overlay", ("rw",)),
        on_host="/merged",
        lowerdir=("/layers/two", "/layers/one"),
        upperdir="/diff",
        workdir="/work",
    ),
    mounts=(MountState(9, 1, "0:50", "/", "/", ("ro",), ("master:2",), "overlay", "overlay", ("rw",)),),
    network=Network(
        "net:[4026532003]",
        (
            LinkState("lo", 1, "loopback", up=True),
            LinkState("eth0", 2, "veth", up=True, mac="02:00:00:00:00:01", addresses=("10.88.0.2/16",)),
        ),
        (RouteState("default", "10.88.0.1", "eth0"),),
        (
            Way(
                "eth0",
                "veth0",
                "host",
                "podman0",
                ("10.88.0.1/16",),
                "ens3",
                "192.0.2.1",
                masquerade=("ip saddr 10.88.0.0/16 masquerade",),
                forwards=True,
            ),
        ),
        (PortMapping("tcp", "", "8080", "10.88.0.2", "80", "nft"),),
    ),
    maps=IdMaps(((0, 100000, 65536),), ((0, 100000, 65536),), "deny"),
    security=Security(
        Ids((100000,) * 4, (100000,) * 4),
        MappingProxyType({"effective": ALL[:11], "permitted": ALL[:11], "bounding": ALL[:11]}),
        ALL,
        seccomp="filter",
        filters=1,
        no_new_privs=True,
        label="containers-default (enforce)",
        rlimits=MappingProxyType({"RLIMIT_NOFILE": (1024, 4096)}),
        rlimits_differ=("RLIMIT_NOFILE",),
        oom_score_adj=200,
    ),
    tree=Tree("pid namespace", (INNER, WORKER), (SHIM,)),
    signs=(Sign("environment", "container=podman"),),
)
CLOSED = replace(
    WEB,
    name="closed",
    **dict.fromkeys(("hostname", "namespaces", "root", "mounts", "network"), NotRead("EACCES", "/proc/4711/ns")),
)


def test_one_in_words_of_80_columns():
    text = xray_view(WEB).text
    lines = text.split("\n")
    assert max(map(len, lines)) <= 80
    assert lines[0] == "web: pid 4711 = 1, nginx -g daemon off;"
    flat = " ".join(text.split())
    for said in (
        "own: mount uts ipc net pid user cgroup; shared with the host: time",
        "memory.max 64M used 24M set in /machine.slice",
        "cpu.max 0.2 CPU (20000 100000) set here",
        "upperdir /diff lowerdir /layers/two lowerdir /layers/one workdir /work",
        "overlay from overlay, read-only, slave",
        "eth0 → veth0 → bridge podman0 10.88.0.1/16 → ens3 via 192.0.2.1, masqueraded",
        "port tcp 8080 → 10.88.0.2:80, nft",
        "user 0 inside = 100000 outside, 65,536 ids",
        "setgroups(2) is denied",
        "effective 11 of 41: 0 1 2 3 4 5 6 7 8 9 10",
        "seccomp filter, 1 filter no_new_privs yes LSM label containers-default (enforce)",
        "RLIMIT_NOFILE 1024 (hard 4096), not as the host's",
        "oom_score_adj 200",
        "pid 4712 7 100033 = 33 nginx: worker",
        "started by conmon (pid 4710)",
        "environment: container=podman",
    ):
        assert said in flat, said


def test_what_may_not_be_read_says_so_and_the_rest_is_there():
    text = " ".join(xray_view(CLOSED).text.split())
    for part in ("namespaces", "root", "mounts", "network"):
        assert f"{part} not readable: EACCES" in text
    assert "memory.max 64M" in text
    assert "not readable: EACCES" in xray_table([WEB, CLOSED]).text


def test_several_stand_side_by_side_with_the_difference_marked():
    other = replace(WEB, name="other", hostname="db")
    lines = xray_table([WEB, other]).text.split("\n")
    assert lines[2].split() == ["≠", "host", "name", "web", "db"]
    assert all(not line.startswith("≠") for line in lines[3:-1])
    assert len({line for line in xray_table([WEB] * 7).text.split("\n") if "host name" in line}) == 2


def test_capabilities_over_an_own_user_namespace_are_not_taken_for_those_of_the_host():
    assert "11 of 41 in its user ns" in " ".join(xray_table([WEB], 100).text.split())
    assert "these count for what its own user namespace owns" in " ".join(xray_view(WEB).text.split())


def test_the_number_of_a_peer_group_is_no_difference():
    other = replace(WEB, root=replace(WEB.root, mount=replace(WEB.root.mount, optional=("master:3",))))
    assert "≠" not in "".join(xray_table([WEB, other]).text.split("\n")[:-1])


def test_only_the_parts_that_are_asked_for_are_shown():
    view = xray_view(WEB, ["root"])
    assert view.text.split("\n")[1].startswith("root")
    assert "namespaces" not in view.text
    assert "<img" not in view.html


def test_what_a_process_calls_itself_cannot_write_html_or_turn_the_terminal():
    evil = replace(INNER, argv=("<script>alert(1)</script>\x1b[31m",), comm="<b>")
    bad = replace(WEB, name='"><img src=x>', process=evil, tree=Tree("pid namespace", (evil,), (evil,)), signs=(Sign("parent", "<i>\x1b"),))
    page = xray_page([bad, bad])
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page + xray_view(bad).text + xray_table([bad]).text
    assert "\x1b" not in to_json([bad])


@pytest.mark.parametrize("one", [WEB, CLOSED, replace(WEB, parent=SHIM)], ids=["whole", "closed", "zombie"])
def test_json_keeps_to_its_schema(one):
    jsonschema.validate(json.loads(to_json([one])), SCHEMA)


def test_json_takes_names_that_are_no_utf_8():
    broken = replace(WEB, hostname=os.fsdecode(b"\xff\xfe"))
    assert json.loads(to_json([broken]))["containers"][0]["hostname"] == "\\xff\\xfe"


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0"), (812, "812"), (1024, "1K"), (24 << 20, "24M"), (25_100_000, "23.9M"), (3 << 30, "3G"), (1 << 42, "4T")]
)
def test_sizes_are_short(number, said):
    assert words.size(number) == said
