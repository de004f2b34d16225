"""What is shown of two snapshots, and what each rule of noise leaves out: on hand-made records."""

from dataclasses import replace
from pathlib import Path

import pytest

from labkit.kernel.snapshot import noise
from labkit.kernel.snapshot.difference import diff
from labkit.kernel.state import (
    CgroupState,
    Change,
    LinkState,
    MountState,
    NamespaceState,
    NetworkState,
    ProcessState,
    RouteState,
    Snapshot,
)
from labkit.ledger import Entry

HOST = {"uts": 1, "net": 2, "pid": 3}
INIT = ProcessState(1, 0, "init", start=1, state="S", namespaces=HOST, cgroups={"": "/"})
SHELL = ProcessState(50, 1, "bash", start=500, state="S", namespaces=HOST, cgroups={"": "/user.slice", "freezer": "/"})
CLOCK = ProcessState(
    70, 50, "bash", start=700, state="S", namespaces=HOST, cgroups={"": "/lab-2.1/processes/clock", "freezer": "/"}, name="clock"
)
LO = LinkState("lo", 1, "loopback", mac="00:00:00:00:00:00")
VETH1 = LinkState("veth1", 5, "veth", mac="aa:00:00:00:00:01", mtu=1500, peer=("host", "veth2"))
VETH2 = LinkState("veth2", 6, "veth", mac="aa:00:00:00:00:02", mtu=1500, peer=("host", "veth1"))
TMPFS = MountState(40, 1, "0:40", "/", "/mnt", ("rw",), (), "tmpfs", "tmpfs", ("rw",))


def processes(*more):
    return Snapshot(processes=(INIT, SHELL, *more))


def cgroups(*some):
    return Snapshot(cgroups=tuple(CgroupState(h, p, f"/sys/fs/cgroup{p}", values) for h, p, values in some))


def network(*links, routes=(), rules=(), name="host", others=()):
    return Snapshot(networks=(NetworkState(name, 2, tuple(links), tuple(routes), tuple(rules)), *others))


def the_one(difference):
    (change,) = (*difference.appeared, *difference.went, *difference.changed)
    return change


def test_two_equal_snapshots_have_no_difference():
    assert not diff(processes(CLOCK), processes(CLOCK))


# processes


def test_a_process_of_the_lab_that_started_is_shown_by_its_name():
    difference = diff(processes(), processes(CLOCK))
    assert difference.appeared == (Change("process", "clock", "", None, "pid 70"),)
    assert not difference.went + difference.changed


def test_a_process_of_the_lab_that_ended_is_shown():
    assert diff(processes(CLOCK), processes()).went == (Change("process", "clock", "", "pid 70", None),)


def test_a_zombie_has_ended():
    assert diff(processes(CLOCK), processes(replace(CLOCK, state="Z"))).went == (Change("process", "clock", "", "pid 70", None),)


@pytest.mark.parametrize("path", ["/", "/user.slice", "/labour", "/mylab-2", "/system.slice/lab.service"])
def test_a_process_that_is_in_no_cgroup_of_a_lab_is_noise(path):
    assert not diff(processes(), processes(replace(SHELL, pid=51, cgroups={"": path, "pids": "/"})))


@pytest.mark.parametrize("path", ["/lab", "/lab-2.1", "/lab-2.1/mycgroup", "/docker/12ab/lab-2.1/x"])
def test_a_process_typed_into_a_cgroup_of_a_lab_is_the_labs(path):
    difference = diff(processes(), processes(replace(SHELL, pid=51, cgroups={"": "/", "freezer": path})))
    assert difference.appeared == (Change("process", "bash", "", None, f"pid 51, cgroup freezer:{path}"),)


def test_the_launcher_is_noise_even_where_it_is_in_a_cgroup_of_the_lab():
    argv = ("/usr/bin/python3", "-I", "-S", "-E", "/opt/lab/labkit/kernel/processes/launcher.py")
    assert not diff(processes(), processes(replace(SHELL, pid=51, argv=argv, cgroups={"": "/lab-2.1"})))


def test_what_a_process_starts_in_its_own_image_is_noise():
    child = replace(CLOCK, pid=71, ppid=70, start=710, comm="sleep")
    assert not diff(processes(CLOCK), processes(CLOCK, child))


def test_a_child_in_other_namespaces_than_its_parent_is_shown():
    child = replace(CLOCK, pid=71, ppid=70, start=710, comm="sleep", name="", namespaces={**HOST, "uts": 9})
    assert the_one(diff(processes(CLOCK), processes(CLOCK, child))) == Change("process", "sleep", "", None, "pid 71, namespaces uts")


def test_a_process_that_existed_and_joins_a_cgroup_of_the_lab_is_a_change_not_a_start():
    joined = replace(SHELL, cgroups={**SHELL.cgroups, "freezer": "/lab-2.1/mycgroup"})
    difference = diff(Snapshot(processes=(INIT, SHELL)), Snapshot(processes=(INIT, joined)))
    assert difference.changed == (Change("process", "bash", "cgroup freezer", "/", "/lab-2.1/mycgroup"),)
    assert not difference.appeared + difference.went


def test_a_child_left_behind_by_its_parent_did_not_start():
    child = replace(CLOCK, pid=71, ppid=70, start=710, comm="sleep", name="")
    difference = diff(processes(CLOCK, child), processes(replace(child, ppid=1)))
    assert difference.went == (Change("process", "clock", "", "pid 70", None),)
    assert not difference.appeared


def test_a_process_of_the_same_name_started_anew_is_seen_by_its_pid():
    difference = diff(processes(CLOCK), processes(replace(CLOCK, pid=80, start=800)))
    assert (difference.went, difference.appeared) == (
        (Change("process", "clock", "", "pid 70", None),),
        (Change("process", "clock", "", None, "pid 80"),),
    )


def test_two_processes_without_a_name_are_told_apart():
    typed = [replace(SHELL, pid=pid, start=pid, cgroups={"": "/lab-2.1/x"}) for pid in (51, 52)]
    assert [change.name for change in diff(processes(), processes(*typed)).appeared] == ["bash", "bash (2)"]


def test_running_sleeping_and_waiting_are_noise_but_stopped_is_not():
    assert not diff(processes(CLOCK), processes(replace(CLOCK, state="R")))
    assert not diff(processes(CLOCK), processes(replace(CLOCK, state="D")))
    stopped = diff(processes(CLOCK), processes(replace(CLOCK, state="T")))
    assert stopped.changed == (Change("process", "clock", "state", "running", "stopped"),)


# namespaces


def test_a_namespace_that_a_process_of_the_lab_has_is_shown_by_that_process():
    inside = replace(CLOCK, namespaces={**HOST, "uts": 9})
    after = replace(processes(inside), namespaces=(NamespaceState("uts", 9, (70,)),))
    assert [(change.kind, change.name, change.after) for change in diff(processes(), after).appeared] == [
        ("namespace", "uts of clock", "uts:[9]"),
        ("process", "clock", "pid 70, namespaces uts"),
    ]


def test_a_namespace_of_an_unrelated_process_is_noise():
    assert not diff(processes(), replace(processes(), namespaces=(NamespaceState("uts", 9, (50,)),)))


@pytest.mark.parametrize(("then", "path", "seen"), [((70,), None, True), ((50, 70), None, False), ((70,), "/run/uts", False)])
def test_a_number_that_the_kernel_gives_to_another_namespace_is_two_namespaces(then, path, seen):
    """The former one has ended with the last process in it; one that still lives there, or a file, has kept it."""
    inside = replace(CLOCK, namespaces={**HOST, "uts": 9})
    before = replace(processes(inside), namespaces=(NamespaceState("uts", 9, then, path=path),))
    new = replace(inside, pid=80, start=800)
    after = replace(processes(new), namespaces=(NamespaceState("uts", 9, tuple({*then, 80} - {70}), path=path),))
    shown = [one.name for one in (*diff(before, after).appeared, *diff(before, after).went) if one.kind == "namespace"]
    assert shown == (["uts of clock", "uts of clock"] if seen else [])


def test_a_namespace_that_a_file_keeps_is_shown_by_that_file():
    assert the_one(diff(Snapshot(), Snapshot(namespaces=(NamespaceState("uts", 9, path="/run/uts"),)))) == Change(
        "namespace", "uts at /run/uts", "", None, "uts:[9]"
    )


def test_a_named_network_namespace_is_shown_once_with_its_loopback_and_its_mount_left_out():
    after = Snapshot(
        namespaces=(NamespaceState("net", 9, path="/run/netns/namespace1"),),
        mounts=(replace(TMPFS, mountpoint="/run/netns/namespace1", fstype="nsfs", source="nsfs"), replace(TMPFS, mountpoint="/run/netns")),
        networks=(NetworkState("namespace1", 9, (LO, replace(LO, ifname="sit0", kind="sit"))),),
    )
    assert the_one(diff(Snapshot(), after)) == Change("netns", "namespace1", "", None, "")
    assert the_one(diff(after, Snapshot())) == Change("netns", "namespace1", "", "", None)


def test_a_network_namespace_made_anew_under_its_name_is_seen():
    old = Snapshot(networks=(NetworkState("namespace1", 9, (LO,)),))
    new = Snapshot(networks=(NetworkState("namespace1", 10, (LO,)),))
    assert the_one(diff(old, new)) == Change("netns", "namespace1", "inode", "9", "10")


def test_a_network_namespace_without_a_name_is_shown_by_the_process_of_the_lab_in_it_and_else_is_noise():
    networks = (NetworkState("net:[9]", 9, (LO, VETH1)), NetworkState("net:[8]", 8, (LO, VETH2)))
    namespaces = (NamespaceState("net", 9, (70,)), NamespaceState("net", 8, (50,)))
    without = replace(processes(CLOCK), namespaces=namespaces, networks=(replace(networks[0], links=(LO,)),))
    assert the_one(diff(without, replace(without, networks=networks))) == Change(
        "link", "veth1 in net of clock", "", None, "veth, peer veth2, down"
    )


# containers of engines

DOCKER_ID = "25f05c582d39d42ecbfcc1f789e45edfcf3b4bf7047aa24eee282072625c77c8"
SHIM = ProcessState(90, 1, "containerd-shim", start=900, state="S", namespaces=HOST, cgroups={"": "/"})
INSIDE = {**HOST, "pid": 13, "net": 12, "cgroup": 14}
POD = "/lab-6.3/rkt-6f4a2c11-0d3e-4b57-9a66-0c1d2e3f4a5b"
FIRST = ProcessState(91, 90, "sleep", start=910, state="S", namespaces=INSIDE, cgroups={"": f"/docker/{DOCKER_ID}"})
ITS_NET = NamespaceState("net", 12, (91,), f"/run/docker/netns/{DOCKER_ID[:12]}")


def with_engine(*more, **fields):
    return Snapshot(processes=(replace(INIT, namespaces={**HOST, "cgroup": 4}), SHELL, SHIM, *more), **fields)


def test_the_first_process_of_a_container_of_an_engine_is_shown_and_neither_its_shim_nor_what_it_starts():
    worker = replace(FIRST, pid=92, ppid=91, start=920, namespaces={**INSIDE, "pid": 15})
    change = the_one(diff(Snapshot(processes=(INIT, SHELL)), with_engine(FIRST, worker)))
    assert (change.kind, change.name, change.after) == ("process", "sleep", "pid 91, namespaces net pid")


def test_what_is_executed_in_a_container_of_an_engine_is_shown():
    assert the_one(diff(with_engine(FIRST), with_engine(FIRST, replace(FIRST, pid=95, comm="sh", start=950)))).name == "sh"


def test_its_namespaces_are_called_by_its_process_and_the_cgroup_namespace_is_the_engines_default():
    namespaces = (ITS_NET, NamespaceState("pid", 13, (91,), None), NamespaceState("cgroup", 14, (91,), None))
    appeared = diff(with_engine(), with_engine(FIRST, namespaces=namespaces)).appeared
    assert [change.name for change in appeared] == ["net of sleep", "pid of sleep", "sleep"]


def test_its_end_of_a_veth_is_in_the_network_of_its_process_also_as_a_peer():
    outside = LinkState("vethcf56057", 6, "veth", mac="aa:00:00:00:00:02", up=True, peer=("net:[12]", "eth0"))
    inside = LinkState("eth0", 2, "veth", mac="aa:00:00:00:00:03", up=True, peer=("host", "vethcf56057"))
    networks = (NetworkState("host", 2, (outside,), (), ()), NetworkState("net:[12]", 12, (inside,), (), ()))
    host = (NetworkState("host", 2, (), (), ()),)
    change = diff(with_engine(networks=host), with_engine(FIRST, namespaces=(ITS_NET,), networks=networks))
    links = {each.name: each.after for each in change.appeared if each.kind == "link"}
    assert links == {"eth0 in net of sleep": "veth, peer vethcf56057, up", "vethcf56057": "veth, peer eth0 in net of sleep, up"}


def test_the_first_process_of_a_container_that_nobody_watches_over_any_more_is_shown_and_its_end_too():
    kept = {"": "/lab-4.7/processes/process", "memory": f"/libpod_parent/libpod-{DOCKER_ID}"}
    orphan = replace(FIRST, ppid=1, namespaces={**INSIDE, "cgroup": 4}, cgroups={**kept, "": f"/libpod_parent/libpod-{DOCKER_ID}"})
    worker = replace(orphan, pid=92, ppid=91, start=920)
    with_orphan = Snapshot(processes=(INIT, SHELL, orphan, worker))
    assert the_one(diff(Snapshot(processes=(INIT, SHELL)), with_orphan)).after == "pid 91, namespaces net pid"
    assert the_one(diff(with_orphan, Snapshot(processes=(INIT, SHELL)))).before == "pid 91, namespaces net pid"


def test_a_container_that_a_person_starts_with_runc_is_told_by_its_process_and_its_cgroup_by_what_is_set_in_it():
    its = ("freezer", "/lab-6.1/runc/busybox")
    started = replace(FIRST, ppid=1, namespaces={**INSIDE, "cgroup": 4}, cgroups={"": "/lab-6.1/runc/busybox"})
    there = Snapshot(processes=(INIT, SHELL, started), cgroups=cgroups((*its, {})).cgroups)
    assert the_one(diff(Snapshot(processes=(INIT, SHELL)), there)).after == "pid 91, namespaces net pid"
    change = the_one(diff(cgroups((*its, {"freezer.state": "THAWED"})), cgroups((*its, {"freezer.state": "FROZEN"}))))
    assert (change.attribute, change.after) == ("freezer.state", "FROZEN")
    assert not diff(cgroups(), cgroups(("", "/lab-6.1/runc", {}), ("", "/lab-6.1/runc/.typed", {})))


@pytest.mark.parametrize(
    "path", ["/docker", f"/docker/{DOCKER_ID}", f"/machine/libpod-{DOCKER_ID}/container", "/kubepods/burstable/pod1", POD, f"{POD}/web"]
)
def test_where_an_engine_keeps_a_container_is_in_its_xray(path):
    assert not diff(cgroups(), cgroups(("", path, {"pids.max": "5"})))


def test_what_keeps_the_network_of_a_container_of_docker_is_shown_with_its_process():
    kept = replace(TMPFS, mountpoint=f"/run/docker/netns/{DOCKER_ID[:12]}", fstype="nsfs", source="nsfs")
    assert not diff(Snapshot(), Snapshot(mounts=(kept,)))


def test_a_network_namespace_that_an_engine_keeps_for_itself_is_no_news():
    kept = NamespaceState("net", 9, path="/proc/70/root/run/docker/netns/1-vhsnr4zdwu")
    assert not diff(Snapshot(), Snapshot(namespaces=(kept,)))
    assert diff(Snapshot(), Snapshot(namespaces=(replace(kept, path="/proc/70/root/run/mine"),)))


@pytest.mark.parametrize("place", ["netns/cni-36398d8d-2a3b-7a94-1881-23949df45724", f"sandboxes/{DOCKER_ID}/shm"])
def test_what_keeps_network_and_memory_of_a_pod_is_shown_with_its_process(place):
    kept = replace(TMPFS, mountpoint=f"/run/labkit/containerd/io.containerd.grpc.v1.cri/{place}")
    assert not diff(Snapshot(), Snapshot(mounts=(kept,)))


def test_the_nat_of_a_pod_is_shown_with_its_link_and_published_ports_are_shown_as_rules():
    nat = "table ip nat chain POSTROUTING ip saddr 10.203.10.27 counter packets 0 bytes 0 jump CNI-9a5b5f677d0ec4fe58a386fe"
    chain = "table ip nat chain CNI-DN-9a5b5f677d0ec4fe58a38"
    way = (chain, "table ip nat chain CNI-HOSTPORT-DNAT tcp dport 8080 jump CNI-DN-9a5b5f677d0ec4fe58a38")
    port = f"{chain} tcp dport 8080 counter packets 0 bytes 0 dnat to 10.203.10.27:80"
    before, after = (NetworkState("host", 2, rules=rules) for rules in ((), (nat, *way, port)))
    change = the_one(diff(Snapshot(networks=(before,)), Snapshot(networks=(after,))))
    assert change.name == f"{chain} tcp dport 8080 counter dnat to 10.203.10.27:80"


def test_tables_and_hooks_that_iptables_makes_first_are_no_news_and_a_policy_is():
    hook = "table ip nat chain POSTROUTING"
    bare = ("table ip nat", hook, f"{hook} type nat hook postrouting priority srcnat; policy accept;")
    drop = "table ip filter chain FORWARD type filter hook forward priority filter; policy drop;"
    before, after = (NetworkState("host", 2, rules=rules) for rules in ((), (*bare, drop)))
    assert the_one(diff(Snapshot(networks=(before,)), Snapshot(networks=(after,)))).name == drop


def test_a_rate_to_which_a_link_is_held_is_shown():
    free, held = (NetworkState("host", 2, links=(replace(VETH1, rate=rate),)) for rate in (0, 1_000_000))
    change = the_one(diff(Snapshot(networks=(free,)), Snapshot(networks=(held,))))
    assert (change.name, change.attribute, change.before, change.after) == ("veth1", "rate", "", "8 Mbit/s (tbf)")


def test_the_bridge_that_comes_with_the_first_pod_of_a_machine_is_no_news_and_the_port_of_a_pod_on_it_is():
    bridge = LinkState("cni0", 7, "bridge", addresses=("10.203.10.1/24",), up=True)
    port = LinkState("veth1", 8, "veth", up=True, master="cni0")
    routes = (RouteState("10.203.10.0/24", ifname="cni0"),)
    before, after = NetworkState("host", 2), NetworkState("host", 2, links=(bridge, port), routes=routes)
    change = the_one(diff(Snapshot(networks=(before,)), Snapshot(networks=(after,))))
    assert (change.name, change.kind) == ("veth1", "link")


# systems in containers

SPACES = {**HOST, "uts": 11, "pid": 13}
CELL = {"": "/lab-3.3/processes/box", "freezer": "/"}
MONITOR = ProcessState(80, 50, "systemd-nspawn", start=800, state="S", namespaces=HOST, cgroups=CELL, name="box")
SYSTEM = ProcessState(
    81, 80, "systemd", start=810, state="S", namespaces=SPACES, cgroups={**CELL, "": "/lab-3.3/processes/box/payload"}, name="box"
)
SERVICE = ProcessState(
    82, 81, "systemd-logind", start=820, state="S", namespaces={**SPACES, "uts": 12}, name="box",
    cgroups={**CELL, "": "/lab-3.3/processes/box/payload/system.slice/logind.service"},
)  # fmt: skip


def with_its_namespaces(*some):
    held = {inode: [each.pid for each in (INIT, SHELL, *some) if each.namespaces["uts"] == inode] for inode in (1, 11, 12)}
    return replace(processes(*some), namespaces=tuple(NamespaceState("uts", inode, tuple(pids)) for inode, pids in held.items() if pids))


def test_of_a_system_in_a_container_its_process_1_is_shown_and_neither_who_watches_over_it_nor_its_services():
    difference = diff(with_its_namespaces(), with_its_namespaces(MONITOR, SYSTEM, SERVICE))
    assert difference.appeared == (
        Change("namespace", "uts of box", "", None, "uts:[11]"),
        Change("process", "box", "", None, "pid 81, namespaces pid uts"),
    )


def test_a_system_whose_init_was_not_executed_yet_is_shown_already_as_what_it_will_be():
    begun = replace(SYSTEM, ppid=79, comm="lxc-start")
    assert the_one(diff(processes(), processes(replace(MONITOR, pid=79, comm="lxc-start"), begun))).name == "box"


def test_what_a_system_does_to_itself_as_it_comes_up_is_noise():
    placed = replace(SYSTEM, cgroups={**CELL, "": "/lab-3.3/processes/box/payload/init.scope"})
    assert not diff(with_its_namespaces(MONITOR, SYSTEM), with_its_namespaces(MONITOR, placed, SERVICE))


def test_a_system_that_systemd_keeps_in_a_unit_of_its_own_is_called_like_the_one_in_the_lab():
    elsewhere = replace(SYSTEM, name="", cgroups={"": "/machine.slice/machine-box.scope/payload/init.scope"})
    assert the_one(diff(processes(), processes(MONITOR, elsewhere))).name == "box"


def test_a_system_that_no_lab_started_is_noise_unless_the_lab_has_claimed_its_name(monkeypatch):
    foreign = replace(SYSTEM, comm="init", name="", ppid=79, cgroups={"": "/lxc.payload.priv/init.scope"})
    its_monitor = replace(MONITOR, pid=79, comm="lxc-start", name="", cgroups={"": "/lxc.monitor.priv"})
    assert not diff(processes(), processes(its_monitor, foreign))
    monkeypatch.setattr("labkit.ledger.live", lambda: [Entry("1", "3.2", "lxc claim", {"name": "priv"})])
    assert the_one(diff(processes(), processes(its_monitor, foreign))) == Change("process", "priv", "", None, "pid 81, namespaces pid uts")


def test_a_program_that_a_person_starts_in_a_running_system_is_shown():
    typed = replace(SERVICE, pid=90, ppid=50, comm="sleep", name="visit", cgroups={"": "/lab-3.3/processes/visit"})
    assert the_one(diff(processes(MONITOR, SYSTEM), processes(MONITOR, SYSTEM, typed))).name == "visit"


def test_a_process_1_that_is_no_init_is_shown_with_what_it_starts():
    shell, child = replace(SYSTEM, comm="bash"), replace(SERVICE, comm="sleep")
    assert [change.name for change in diff(processes(), processes(shell, child)).appeared] == ["box", "box (2)"]


# cgroups


def test_the_root_of_a_hierarchy_comes_with_its_mount_and_is_no_cgroup_that_was_made():
    assert not diff(cgroups(), cgroups(("freezer", "/", {})))
    assert not diff(cgroups(("freezer", "/", {})), cgroups())


def test_a_cgroup_that_was_made_is_shown_with_what_was_set_in_it():
    after = cgroups(("freezer", "/lab-2.1/mycgroup", {"freezer.state": "THAWED"}), ("", "/lab-2.1/demo", {"memory.max": "67108864"}))
    assert diff(Snapshot(), after).appeared == (
        Change("cgroup", "cgroup2:/lab-2.1/demo", "", None, "memory.max=67108864"),
        Change("cgroup", "freezer:/lab-2.1/mycgroup", "", None, ""),
    )


def test_a_value_of_a_cgroup_that_changed_is_shown():
    old, new = (cgroups(("freezer", "/lab-2.1/mycgroup", {"freezer.state": state})) for state in ("THAWED", "FROZEN"))
    assert the_one(diff(old, new)) == Change("cgroup", "freezer:/lab-2.1/mycgroup", "freezer.state", "THAWED", "FROZEN")


@pytest.mark.parametrize(
    "file",
    ["memory.current", "cpu.stat", "memory.events", "pids.peak", "cgroup.procs", "tasks", "cpu.pressure", "cgroup.controllers",
     "freezer.parent_freezing", "memory.usage_in_bytes", "cpuset.cpus.effective", "cpuset.effective_mems", "cpu.weight.nice"],
)  # fmt: skip
def test_a_file_that_counts_or_follows_from_another_is_noise(file):
    assert not diff(cgroups(("", "/lab-2.1/x", {file: "1"})), cgroups(("", "/lab-2.1/x", {file: "2"})))


def test_files_that_come_with_a_controller_are_noise_and_the_enabling_is_not():
    old = cgroups(("", "/lab-2.1", {"cgroup.subtree_control": ""}), ("", "/lab-2.1/x", {}))
    new = cgroups(("", "/lab-2.1", {"cgroup.subtree_control": "memory"}), ("", "/lab-2.1/x", {"memory.max": "max"}))
    assert the_one(diff(old, new)) == Change("cgroup", "cgroup2:/lab-2.1", "cgroup.subtree_control", "", "memory")


@pytest.mark.parametrize("path", ["/lab-2.1", "/lab", "/lab-2.1/processes", "/lab-2.1/processes/clock", "/system.slice/cron.service",
                                  "/user.slice/user-0.slice/session-1.scope", "/init.scope"])  # fmt: skip
def test_the_labs_own_places_and_those_of_systemd_are_noise(path):
    assert not diff(Snapshot(), cgroups(("", path, {})))


def test_a_cgroup_that_a_person_made_elsewhere_is_shown():
    assert the_one(diff(Snapshot(), cgroups(("freezer", "/mycgroup", {})))).name == "freezer:/mycgroup"


# mounts


def test_a_mount_is_shown_by_its_directory():
    assert the_one(diff(Snapshot(), Snapshot(mounts=(TMPFS,)))) == Change("mount", "/mnt", "", None, "tmpfs")


def test_a_second_mount_on_the_same_directory_is_shown():
    assert the_one(diff(Snapshot(mounts=(TMPFS,)), Snapshot(mounts=(TMPFS, replace(TMPFS, id=41, device="0:41"))))).name == "/mnt"


def test_an_overlay_that_is_mounted_once_more_is_the_same_one():
    first = replace(TMPFS, fstype="overlay", source="overlay", super_options=("rw", "upperdir=/a", "uuid=on"))
    assert not diff(Snapshot(mounts=(first,)), Snapshot(mounts=(replace(first, device="0:52", super_options=("rw", "upperdir=/a")),)))
    other = replace(first, super_options=("rw", "upperdir=/b"))
    assert the_one(diff(Snapshot(mounts=(first,)), Snapshot(mounts=(other,)))).attribute == "super_options"


def test_who_clears_away_after_a_container_is_noise():
    conmon = replace(CLOCK, pid=60, comm="conmon", argv=("conmon",), name="")
    podman = replace(CLOCK, pid=61, ppid=60, comm="podman", argv=("/usr/bin/podman", "container", "cleanup", "1234"), name="")
    assert not diff(processes(conmon), processes(conmon, podman))
    asked = replace(podman, argv=("podman", "ps"))
    assert the_one(diff(processes(conmon), processes(conmon, asked))).name == "podman"


def test_another_mount_in_the_place_of_the_first_is_one_that_went_and_one_that_appeared():
    bound = replace(TMPFS, device="254:0", root="/srv", fstype="ext4", source="/dev/vda", options=("ro",))
    difference = diff(Snapshot(mounts=(TMPFS,)), Snapshot(mounts=(bound,)))
    assert (the_one(replace(difference, appeared=())), the_one(replace(difference, went=()))) == (
        Change("mount", "/mnt", "", "tmpfs", None),
        Change("mount", "/mnt", "", None, "ext4 /dev/vda /srv, ro"),
    )


def test_a_remount_and_a_propagation_are_changes_of_one_value():
    assert the_one(diff(Snapshot(mounts=(TMPFS,)), Snapshot(mounts=(replace(TMPFS, options=("ro",)),)))).attribute == "options"
    shared = diff(Snapshot(mounts=(TMPFS,)), Snapshot(mounts=(replace(TMPFS, optional=("shared:7",)),)))
    assert the_one(shared) == Change("mount", "/mnt", "propagation", "private", "shared")


def test_the_number_of_a_peer_group_and_the_mount_id_are_noise():
    shared = replace(TMPFS, optional=("shared:7",))
    assert not diff(Snapshot(mounts=(shared,)), Snapshot(mounts=(replace(shared, id=99, optional=("shared:8",)),)))


def test_the_cgroup_file_systems_that_the_lab_mounts_for_itself_are_noise(monkeypatch):
    monkeypatch.setenv("LABKIT_STATE", "/var/lib/x")
    own = replace(TMPFS, mountpoint="/var/lib/x/cgroup2", fstype="cgroup2")
    assert not diff(Snapshot(), Snapshot(mounts=(own,)))
    assert diff(Snapshot(), Snapshot(mounts=(replace(own, mountpoint="/var/lib/x/labs/2.3/union", fstype="overlay"),)))


@pytest.mark.parametrize(
    "mountpoint", ["/run/user/0", "/run/systemd/nspawn/unix-export/box", "/run/credentials/getty.service", "/proc/sys/fs/binfmt_misc"]
)
def test_what_systemd_mounts_by_itself_is_noise(mountpoint):
    assert not diff(Snapshot(), Snapshot(mounts=(replace(TMPFS, mountpoint=mountpoint),)))


# networks


def test_a_veth_pair_is_two_links():
    assert [change.name for change in diff(network(LO), network(LO, VETH1, VETH2)).appeared] == ["veth1", "veth2"]


def test_a_link_that_was_moved_is_one_change_and_its_peer_none():
    inside = NetworkState("namespace1", 9, (LO,))
    moved = replace(inside, links=(LO, replace(VETH1, index=3)))
    before, after = network(LO, VETH1, VETH2, others=(inside,)), network(LO, replace(VETH2, peer=("namespace1", "veth1")), others=(moved,))
    assert the_one(diff(before, after)) == Change("link", "veth1", "netns", "host", "namespace1")


def test_a_link_that_was_renamed_is_one_change():
    assert the_one(diff(network(VETH1), network(replace(VETH1, ifname="eth0")))) == Change("link", "eth0", "ifname", "veth1", "eth0")


def test_a_link_set_up_is_one_change_with_what_the_kernel_does_by_itself_left_out():
    up = replace(VETH1, up=True, operstate="UP", addresses=("fe80::1/64",))
    after = network(up, routes=(RouteState("fe80::/64", ifname="veth1"), RouteState("ff00::/8", ifname="veth1")))
    assert the_one(diff(network(VETH1), after)) == Change("link", "veth1", "state", "down", "up")


def test_a_loopback_set_up_is_one_change():
    up = replace(LO, up=True, addresses=("127.0.0.1/8", "::1/128"))
    after = network(up, routes=(RouteState("::1/128", ifname="lo"),))
    assert the_one(diff(network(LO), after)) == Change("link", "lo", "state", "down", "up")


def test_the_state_of_the_line_the_mac_and_the_number_of_a_link_are_noise():
    assert not diff(network(VETH1), network(replace(VETH1, operstate="UP", mac="aa:00:00:00:00:09", index=9)))


def test_a_port_of_a_bridge_is_a_change_of_its_master():
    assert the_one(diff(network(VETH1), network(replace(VETH1, master="br0")))) == Change("link", "veth1", "master", "", "br0")


@pytest.mark.parametrize(
    ("address", "destination"), [("192.168.1.1/24", "192.168.1.0/24"), ("2001:db8::1/64", "2001:db8::/64"), ("10.0.0.1/32", "10.0.0.1")]
)
def test_an_address_is_one_change_and_the_route_that_follows_from_it_none(address, destination):
    after = network(replace(VETH1, addresses=(address,)), routes=(RouteState(destination, ifname="veth1"),))
    assert the_one(diff(network(VETH1), after)) == Change("address", f"{address} on veth1", "", None, "")
    assert the_one(diff(after, network(VETH1))).before == ""


def test_addresses_that_went_with_their_link_need_no_word():
    before = network(LO, replace(VETH1, addresses=("192.168.1.1/24",)), routes=(RouteState("192.168.1.0/24", ifname="veth1"),))
    assert the_one(diff(before, network(LO))) == Change("link", "veth1", "", "veth, peer veth2, down", None)


def test_a_route_is_one_change():
    after = network(VETH1, routes=(RouteState("default", "192.168.1.254", "veth1"),), name="namespace1")
    assert the_one(diff(network(VETH1, name="namespace1"), after)) == Change(
        "route", "default via 192.168.1.254 dev veth1 in namespace1", "", None, ""
    )


def test_a_rule_is_one_change_and_the_packets_it_counted_none():
    first = "ip nat POSTROUTING counter packets 1 bytes 60 masquerade # handle 4"
    second = "ip nat POSTROUTING counter packets 9 bytes 540 masquerade # handle 5"
    assert not diff(network(rules=[first]), network(rules=[second]))
    assert the_one(diff(network(), network(rules=[first]))) == Change("rule", "ip nat POSTROUTING counter masquerade", "", None, "")
    assert the_one(diff(network(rules=[first]), network(rules=[first, second]))).after == ""


def test_changes_come_sorted_whatever_the_order_of_the_records():
    links = [replace(VETH1, ifname=f"d{n}", mac=f"aa:00:00:00:01:0{n}") for n in range(9)]
    assert diff(network(), network(*links)) == diff(network(), network(*reversed(links)))


def test_every_table_of_noise_says_why():
    text = Path(noise.__file__).read_text()
    for name in [name for name in vars(noise) if name.isupper()]:
        after = text.split(f"\n{name} = ", 1)[1]
        assert '\n"""' in after.split("\n\n", 1)[0], f"{name} has no line that says why"


def test_controllers_that_the_cgroups_above_a_lab_hand_down_are_no_news():
    def handing_down(path, controllers):
        return cgroups(("", path, {"cgroup.subtree_control": controllers}))

    for path in ("/", "/user"):
        assert not diff(handing_down(path, ""), handing_down(path, "memory pids"))
    change = the_one(diff(handing_down("/lab-2.1/mine", ""), handing_down("/lab-2.1/mine", "memory")))
    assert (change.attribute, change.after) == ("cgroup.subtree_control", "memory")
