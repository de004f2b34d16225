"""A snapshot of the real kernel, and the difference of two: each act of a lab is the right change, all else is none."""

import subprocess
import sys
import threading
import uuid

import pytest

from labkit import ledger
from labkit.kernel import processes
from labkit.kernel.cgroups import Cgroup, hierarchies
from labkit.kernel.snapshot import diff, snapshot
from labkit.kernel.state import Change


def sh(line):
    return subprocess.run(["bash", "-ec", line], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def lab():
    """Be the lab "snap"; what it makes is undone."""
    ledger.own("snap")
    yield
    ledger.undo()
    ledger.own("")


@pytest.fixture
def netns():
    """Have a network namespace, its loopback down, until the end."""
    sh("ip netns add snap1")
    yield "snap1"
    sh("ip netns delete snap1")


@pytest.fixture
def link(netns):
    """Have a veth pair in the namespace, down."""
    sh(f"ip -n {netns} link add snapa type veth peer name snapb")
    return netns


def difference(act):
    before = snapshot()
    act()
    return diff(before, snapshot())


def changes(act):
    found = difference(act)
    return [*found.appeared, *found.went, *found.changed]


def change(act):
    (found,) = changes(act)
    return found


# what is no news


def test_nothing_happened():
    assert changes(lambda: None) == []


def test_an_unrelated_process_that_starts_and_one_that_ends_are_no_news():
    started = []
    assert changes(lambda: started.append(subprocess.Popen(["sleep", "100"]))) == []
    assert changes(lambda: (started[0].kill(), started[0].wait())) == []


def test_an_unrelated_process_in_namespaces_of_its_own_is_no_news():
    started = []

    def start():
        started.append(subprocess.Popen(["unshare", "--uts", "--net", "--mount", "sh", "-c", "echo; sleep 100"], stdout=subprocess.PIPE))
        started[0].stdout.readline()

    assert changes(start) == []
    sh(f"pkill -KILL -P {started[0].pid}")
    started[0].communicate()


def test_packets_that_flow_are_no_news(link):
    netns = link
    sh(f"ip -n {netns} link set lo up")
    assert changes(lambda: sh(f"ip netns exec {netns} ping -c 2 -i 0.01 127.0.0.1")) == []


def test_rules_that_count_packets_are_no_news(netns):
    sh(f"ip -n {netns} link set lo up")
    sh(f"ip netns exec {netns} nft 'add table ip t; add chain ip t c {{ type filter hook output priority 0; }}; add rule ip t c counter'")
    assert changes(lambda: sh(f"ip netns exec {netns} ping -c 1 127.0.0.1")) == []


def test_a_loop_that_starts_short_processes_and_uses_cpu_and_memory_is_no_news(lab):
    group = Cgroup.create("demo")
    clock = processes.start(["bash", "-c", "while :; do date; sleep 0.01; done"], name="clock", cgroups=[group])
    clock.wait_output("(?s)(.*\n){3}")
    assert changes(lambda: clock.wait_output("(?s)(.*\n){15}")) == []


def test_the_launcher_that_is_started_with_the_first_process_is_no_news(lab):
    code = """
from labkit import ledger
from labkit.kernel import processes
from labkit.kernel.snapshot import diff, snapshot
ledger.own("snap")
before = snapshot()
processes.start(["sleep", "100"], name="first")
found = diff(before, snapshot())
print([(each.kind, each.name) for each in (*found.appeared, *found.went, *found.changed)])
ledger.undo()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "[('process', 'first')]\n", ended.stderr


# processes and namespaces


def test_a_process_of_the_lab_is_one_change_when_it_starts_and_one_when_it_ends(lab):
    started = []
    appeared = change(lambda: started.append(processes.start(["sleep", "100"], name="clock")))
    assert appeared == Change("process", "clock", "", None, f"pid {started[0].pid}")
    assert change(started[0].kill) == Change("process", "clock", "", f"pid {started[0].pid}", None)


def test_a_process_with_a_namespace_of_its_own_is_shown_with_it(lab):
    found = difference(lambda: processes.start(["sleep", "100"], name="clock", new=["uts"])).appeared
    assert [(each.kind, each.name) for each in found] == [("namespace", "uts of clock"), ("process", "clock")]


def test_a_process_that_is_stopped_is_one_change(lab):
    clock = processes.start(["sleep", "100"], name="clock")

    def stop():
        clock.signal(19)
        while clock.state().state != "T":
            pass

    assert change(stop) == Change("process", "clock", "state", "running", "stopped")


# cgroups


def test_a_cgroup_is_one_change_although_the_labs_own_directory_comes_with_it(lab):
    assert (change(lambda: Cgroup.create("demo")).kind, change(lambda: Cgroup.find("demo").remove()).kind) == ("cgroup", "cgroup")


def test_freezing_a_cgroup_is_one_change_and_nothing_of_the_process_in_it(lab):
    group = Cgroup.create("demo")
    processes.start(["sleep", "100"], name="clock", cgroups=[group])
    frozen = change(group.freeze)
    assert (frozen.kind, frozen.attribute, frozen.before, frozen.after) in (
        ("cgroup", "freezer.state", "THAWED", "FROZEN"),
        ("cgroup", "cgroup.freeze", "0", "1"),
    )
    assert frozen.name.endswith(":/lab-snap/demo")
    assert change(group.thaw).before == frozen.after


def test_a_limit_that_was_set_is_one_change(lab):
    group = Cgroup.create("demo", controllers=("pids",))
    limited = change(lambda: group.__setitem__("pids.max", 7))
    assert (limited.attribute, limited.before, limited.after) == ("pids.max", "max", "7")


def test_a_process_put_into_a_cgroup_is_one_change_of_the_process(lab):
    group = Cgroup.create("demo")
    clock = processes.start(["sleep", "100"], name="clock")
    attached = change(lambda: group.attach(clock))
    assert (attached.kind, attached.name, attached.after) == ("process", "clock", "/lab-snap/demo")


def test_a_shell_that_a_person_puts_into_a_cgroup_by_hand_is_one_change(lab):
    group = Cgroup.create("demo")
    with subprocess.Popen(["sleep", "100"]) as typed:
        attached = change(lambda: (group.path / "cgroup.procs").write_text(str(typed.pid)))
        assert (attached.kind, attached.name, attached.after) == ("process", "sleep", "/lab-snap/demo")
        typed.kill()


# mounts


def test_a_mount_its_remount_and_its_end_are_one_change_each(tmp_path):
    assert change(lambda: sh(f"mount -t tmpfs snap {tmp_path}")) == Change("mount", str(tmp_path), "", None, "tmpfs snap")
    remounted = change(lambda: sh(f"mount -o remount,bind,ro {tmp_path}"))
    assert (remounted.attribute, remounted.before.split(",")[0], remounted.after.split(",")[0]) == ("options", "rw", "ro")
    shared = change(lambda: sh(f"mount --make-shared {tmp_path} && mount --make-slave {tmp_path} && mount --make-shared {tmp_path}"))
    assert (shared.attribute, shared.before) == ("propagation", "private")
    assert change(lambda: sh(f"umount {tmp_path}")).after is None


# networks


def test_a_named_network_namespace_is_one_change():
    assert change(lambda: sh("ip netns add snap1")) == Change("netns", "snap1", "", None, "")
    assert change(lambda: sh("ip netns delete snap1")) == Change("netns", "snap1", "", "", None)


def test_a_link_is_one_change(netns):
    assert change(lambda: sh(f"ip -n {netns} link add br0 type bridge")).name == f"br0 in {netns}"
    assert change(lambda: sh(f"ip -n {netns} link set br0 up")).attribute == "state"
    assert change(lambda: sh(f"ip -n {netns} link delete br0")).name == f"br0 in {netns}"


def test_a_pair_is_two_links_and_moving_one_end_is_one_change(netns):
    assert [each.name for each in changes(lambda: sh("ip link add snapc type veth peer name snapd"))] == ["snapc", "snapd"]
    moved = change(lambda: sh(f"ip link set snapc netns {netns}"))
    assert moved == Change("link", "snapc", "netns", "host", netns)
    sh("ip link delete snapd")


def test_setting_both_ends_up_is_one_change_each_although_the_kernel_adds_addresses_and_routes(link):
    netns = link
    assert [each.name for each in changes(lambda: sh(f"ip -n {netns} link set snapa up && ip -n {netns} link set snapb up"))] == [
        f"snapa in {netns}",
        f"snapb in {netns}",
    ]


def test_an_address_is_one_change_although_a_route_comes_with_it(link):
    netns = link
    sh(f"ip -n {netns} link set snapa up && ip -n {netns} link set snapb up")
    added = change(lambda: sh(f"ip -n {netns} address add 192.168.1.1/24 dev snapa"))
    assert added == Change("address", f"192.168.1.1/24 on snapa in {netns}", "", None, "")
    assert change(lambda: sh(f"ip -n {netns} address delete 192.168.1.1/24 dev snapa")).before == ""


def test_a_route_is_one_change(link):
    netns = link
    sh(f"ip -n {netns} link set snapa up && ip -n {netns} link set snapb up && ip -n {netns} address add 192.168.1.1/24 dev snapa")
    added = change(lambda: sh(f"ip -n {netns} route add default via 192.168.1.2"))
    assert added == Change("route", f"default via 192.168.1.2 dev snapa in {netns}", "", None, "")


def test_an_nft_rule_is_one_change(netns):
    sh(f"ip netns exec {netns} nft 'add table ip t; add chain ip t c'")
    added = change(lambda: sh(f"ip netns exec {netns} nft add rule ip t c counter accept"))
    assert (added.kind, added.before) == ("rule", None)
    assert "accept" in added.name


# while the machine changes


def test_a_snapshot_never_fails_because_something_goes_while_it_looks():
    stop = threading.Event()
    group = "/sys/fs/cgroup/" + ("unified/" if sh("stat -fc %T /sys/fs/cgroup").strip() == "tmpfs" else "")

    def churn():
        while not stop.is_set():
            sh(f"for n in 1 2 3 4 5; do true & done; wait; mkdir {group}snap-churn; rmdir {group}snap-churn; ip netns add snap2; "
               "unshare --uts --net true; ip netns delete snap2")  # fmt: skip

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        taken = [snapshot() for _ in range(60)]
    finally:
        stop.set()
        thread.join()
    assert all(each.processes and each.mounts and each.networks and each.namespaces for each in taken)


def test_each_kind_of_state_is_in_a_snapshot_and_a_process_carries_its_places(lab):
    group = Cgroup.create("demo")
    clock = processes.start(["sleep", "100"], name="clock", cgroups=[group], new=["uts", "pid"])
    taken = snapshot()
    (found,) = [each for each in taken.processes if each.pid == clock.pid]
    assert (found.name, found.pid_inside, found.argv) == ("clock", 1, ("sleep", "100"))
    assert "/lab-snap/demo" in found.cgroups.values()
    assert {each.kind for each in taken.namespaces if clock.pid in each.pids} >= {"uts", "pid", "net"}
    assert any(each.path == "/lab-snap/demo" and clock.pid in each.pids for each in taken.cgroups)


def test_a_name_outlives_the_notebook_that_gave_it(lab):
    """Another process reads it from the place where the lab keeps the process."""
    processes.start(["sleep", "100"], name="clock")
    code = "from labkit.kernel.snapshot import snapshot; print([each.name for each in snapshot().processes if each.name])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "['clock']\n"


def test_a_process_of_a_pod_has_the_name_of_who_runs_it_also_where_it_left_the_place_of_that_one(lab):
    """In v2 a process is in one cgroup: in that of the pod, and no more in that by which the lab knows it."""
    shell = processes.start(["sh", "-c", "sleep 1000 & wait"], name="store")
    (place,) = [each.path for each in snapshot().cgroups if each.hierarchy == "" and shell.pid in each.pids]
    pod = hierarchies().unified / place.lstrip("/").partition("/")[0] / f"rkt-{uuid.uuid4()}"
    pod.mkdir()
    app = int(sh(f"pgrep --parent {shell.pid}"))
    (pod / "cgroup.procs").write_text(str(app))
    assert {each.pid: each.name for each in snapshot().processes if each.name} == {shell.pid: "store", app: "store"}
    shell.kill()
    pod.rmdir()
