"""Control groups against the real kernel: each test reads back what the kernel says."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import ledger, trace
from labkit.errors import LabError, SyscallError, UnsupportedError
from labkit.kernel import cgroups, processes
from labkit.kernel.cgroups import Cgroup
from labkit.kernel.cgroups import members as cgroup_members

HERE = cgroups.hierarchies()
UNIFIED = HERE.unified
V1 = pytest.mark.skipif(HERE.version_of("memory") != 1, reason="this machine has v2 alone: there is no controller in v1")
CLOCK = "while :; do date +%N; sleep 0.05; done"


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    before = ledger.owner()
    ledger.own("test-cgroups")
    try:
        yield
    finally:
        ledger.undo("test-cgroups")
        ledger.own(before)
    left = [path for hierarchy in cgroups.hierarchies().mounted for path in hierarchy.path.glob("lab-test*")]
    assert left == []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a script as the lab does, in a tracker cgroup; `outside` starts it as anybody would."""
    started: list[subprocess.Popen] = []

    def run(script: str, name: str = "clock", outside: bool = False) -> subprocess.Popen:
        if not outside:
            place = cgroups.tracker(name) / "cgroup.procs"
            script = f"echo $$ > {place}; {script}"
        with (tmp_path / name).open("wb") as output:
            process = subprocess.Popen(["bash", "-c", script], stdout=output, stderr=subprocess.STDOUT)
        process.name = name
        started.append(process)
        if not outside:
            wait_until(lambda: process.pid in cgroup_members.pids(place.parent))  # else it may leave where it is put next
        return process

    yield run
    ledger.undo("test-cgroups")  # first: what the v1 freezer holds does not die
    for process in started:
        process.kill()
        process.wait(5)


def wait_until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


def in_cgroup(pid: int, hierarchy: str) -> str:
    return cgroup_members.memberships(pid)[hierarchy]


def grows(file: Path, seconds: float) -> bool:
    size = file.stat().st_size
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if file.stat().st_size > size:
            return True
        time.sleep(0.01)
    return False


# --- made, found, entered ---


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_is_made_in_the_part_of_the_lab_and_found_again_by_its_name(version):
    group = Cgroup.create("mycgroup", version=version)
    assert group.path.is_dir()
    assert group.path.parent.name == "lab-test-cgroups"
    assert group.version == version
    inode = group.path.stat().st_ino
    assert Cgroup.create("mycgroup", version=version) == group
    assert Cgroup.find("mycgroup") == group
    assert group.path.stat().st_ino == inode


def test_without_a_version_the_freezer_is_where_the_machine_has_it():
    assert Cgroup.create("mycgroup").version == cgroups.hierarchies().version_of("freezer")


@pytest.mark.parametrize("version", [1, 2])
def test_a_process_is_moved_with_all_its_threads(version, start, tmp_path):
    script = "import threading, time; [threading.Thread(target=time.sleep, args=(60,)).start() for _ in range(3)]; print('up', flush=True)"
    process = start(f"exec {sys.executable} -c \"{script}\"", "threads")
    wait_until(lambda: b"up" in (tmp_path / "threads").read_bytes())
    group = Cgroup.create("mycgroup", version=version)
    group.attach(process)
    assert group.procs() == (process.pid,)
    assert len(group.threads()) == 4
    assert in_cgroup(process.pid, "freezer" if version == 1 else "") == "/lab-test-cgroups/mycgroup"


def test_a_process_enters_every_hierarchy_of_the_cgroup(start):
    process = start("sleep 60")
    group = Cgroup.create("mycgroup", ("freezer", "memory", "pids", "cpu"))
    group.attach(process.pid)
    assert {group.directory(name) for name in ("freezer", "memory", "pids", "cpu")} <= set(group.directories)
    assert all(process.pid in cgroup_members.pids(directory) for directory in group.directories)


def test_the_accounting_that_v1_keeps_apart_is_a_part_of_cpu_in_v2():
    group = Cgroup.create("mycgroup", ("cpu", "cpuacct"))
    assert {"usage_usec", "nr_throttled", "throttled_usec"} <= set(group["cpu.stat"])


def test_children_and_parents():
    group = Cgroup.create("mycgroup", ("freezer", "pids"))
    child = group.child("inner").child("most")
    assert child.name == "mycgroup/inner/most"
    assert [each.name for each in group.children()] == ["mycgroup/inner"]
    assert child.parent == group.child("inner")
    assert child.parent.parent == group
    assert group.parent is None
    assert all(directory.is_dir() for directory in child.directories)
    assert Cgroup.find("mycgroup/inner/most").directories == child.directories


def test_a_cpuset_can_be_entered_at_once(start):
    process = start("sleep 60")
    group = Cgroup.create("mycgroup", "cpuset")
    assert group["cpuset.cpus.effective"] != ""
    group.attach(process)
    assert group.procs() == (process.pid,)


# --- frozen ---


@pytest.mark.parametrize("version", [1, 2])
def test_a_frozen_clock_prints_nothing_and_a_thawed_one_goes_on(version, start, tmp_path):
    clock = start(CLOCK)
    group = Cgroup.create("mycgroup", version=version)
    group.attach(clock)
    assert grows(tmp_path / "clock", 2)
    group.freeze()
    assert group.frozen
    assert group["cgroup.freeze"] == 1
    assert group["cgroup.events"]["frozen"] == 1
    assert not grows(tmp_path / "clock", 0.5)
    group.thaw()
    assert not group.frozen
    assert group["cgroup.events"]["frozen"] == 0
    assert grows(tmp_path / "clock", 2)


@pytest.mark.parametrize("version", [1, 2])
def test_the_kernel_is_asked_in_its_own_words(version, start):
    group = Cgroup.create("mycgroup", version=version)
    group.attach(start(CLOCK))
    group.freeze()
    if version == 1:
        assert (group.path / "freezer.state").read_text() == "FROZEN\n"
        assert group["freezer.state"] == "FROZEN"
    else:
        assert "frozen 1" in (group.path / "cgroup.events").read_text()


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_below_a_frozen_one_cannot_be_thawed_and_the_reason_is_measured(version, start):
    group = Cgroup.create("mycgroup", version=version)
    child = group.child("inner")
    child.attach(start(CLOCK))
    child.freeze()
    group.freeze()
    with pytest.raises(LabError) as error:
        child.thaw(timeout=0.2)
    assert error.value.cause == f"{group.path}, above it, is frozen"
    group.thaw()
    child.thaw()
    assert not child.frozen


def test_a_cgroup_with_this_very_process_in_it_is_neither_frozen_nor_killed():
    group = Cgroup.create("mycgroup", version=1)
    group.attach(os.getpid())
    try:
        for act in (group.freeze, group.kill, group.remove):
            with pytest.raises(LabError, match="own process"):
                act()
        assert not group.frozen
    finally:
        cgroup_members.write(group.path.parent.parent / "cgroup.procs", str(os.getpid()))


@V1
def test_a_cgroup_without_a_freezer_says_what_it_has():
    with pytest.raises(LabError, match="it has pids"):
        Cgroup.create("mycgroup", "pids").freeze()


# --- limits ---


def test_a_process_over_its_memory_limit_is_killed_by_the_kernel_and_counted(start):
    group = Cgroup.create("hog", ("memory",))
    group["memory.max"] = "32M"
    group["memory.swap.max"] = 0
    assert group["memory.max"] == 32 << 20
    assert group["memory.events"]["oom_kill"] == 0
    moved = "until grep -q :/lab-test-cgroups/hog /proc/self/cgroup; do sleep 0.01; done"
    hog = start(f"{moved}; exec {sys.executable} -c 'x = bytearray(256 << 20)'")
    group.attach(hog)
    assert hog.wait(20) == -signal.SIGKILL
    assert group["memory.events"]["oom_kill"] == 1
    assert group["memory.peak"] <= 32 << 20


def test_a_fork_bomb_stops_at_the_limit_of_processes(start, tmp_path):
    group = Cgroup.create("bomb", ("pids",))
    group["pids.max"] = 20
    bomb = start("until grep -q :/lab-test-cgroups/bomb /proc/self/cgroup; do sleep 0.01; done; f() { f | f & }; f; sleep 60", "bomb")
    group.attach(bomb)
    wait_until(lambda: group["pids.events"]["max"] > 0)
    assert group["pids.current"] <= 20
    group.kill()
    assert group.procs() == ()
    bomb.wait(5)
    wait_until(lambda: group["pids.current"] == 0)  # the dead count until their parent has asked for them


def test_a_quota_of_a_fifth_of_a_cpu_is_measured(start):
    group = Cgroup.create("spin", ("cpu", "cpuacct"))
    group["cpu.max"] = "20000 100000"
    assert group["cpu.max"] == "20000 100000"
    group.attach(start("while :; do :; done", "spin"))
    before, began = group["cpu.stat"], time.monotonic()
    wait_until(lambda: group["cpu.stat"]["nr_periods"] >= before["nr_periods"] + 8)
    after, passed = group["cpu.stat"], time.monotonic() - began
    assert after["nr_throttled"] > before["nr_throttled"]
    assert (after["usage_usec"] - before["usage_usec"]) / 1e6 < 0.4 * passed


@V1
def test_the_weights_of_v2_and_the_shares_of_v1_are_the_same_thing():
    group = Cgroup.create("mycgroup", "cpu")
    for weight, shares in ((1, 10), (100, 1024), (200, 2048), (10_000, 102_400)):
        group["cpu.weight"] = weight
        assert group["cpu.weight"] == weight
        assert group["cpu.shares"] == shares


def test_a_quota_may_change_its_period():
    group = Cgroup.create("mycgroup", "cpu")
    for value in ("90000 100000", "5000 10000", "max 100000", "30000 100000"):
        group["cpu.max"] = value
        assert group["cpu.max"] == value


@V1
def test_a_limit_below_what_is_in_use_is_refused_with_what_is_in_use(start, tmp_path):
    group = Cgroup.create("hog", ("memory",))
    use = "import time; x = bytearray(32 << 20); x[::4096] = bytes([1]) * (32 << 8); print(1, flush=True); time.sleep(60)"
    process = start(f"until grep -q :/lab-test-cgroups/hog /proc/self/cgroup; do sleep 0.01; done; exec {sys.executable} -c '{use}'")
    group.attach(process)
    wait_until(lambda: b"1" in (tmp_path / "clock").read_bytes())
    with pytest.raises(SyscallError) as error:
        group["memory.max"] = "1M"
    assert error.value.errno == errno.EBUSY
    assert "bytes are in use" in error.value.cause


def test_a_quota_too_small_for_the_kernel_is_explained():
    with pytest.raises(SyscallError, match="less than 1000"):
        Cgroup.create("mycgroup", "cpu")["cpu.max"] = "10 100000"


def test_a_file_that_can_only_be_read_is_not_written():
    with pytest.raises(LabError, match="can be read only"):
        Cgroup.create("mycgroup", "pids")["pids.current"] = 3


# --- killed, removed ---


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_cgroup_is_killed_with_all_below_it_also_when_frozen(version, frozen, start):
    group = Cgroup.create("mycgroup", version=version)
    first, second = start("sleep 60 & sleep 60", "a"), start("sleep 60", "b")
    group.attach(first)
    group.child("inner").attach(second)
    if frozen:
        group.freeze()
    group.kill()
    assert group.procs() == group.child("inner").procs() == ()
    assert (first.wait(1), second.wait(1)) == (-9, -9)


def test_a_killed_fork_bomb_no_longer_counts():
    group = Cgroup.create("few", controllers=("pids",))
    group["pids.max"] = "20"
    bomb = processes.start(["bash", "-c", "bomb() { bomb | bomb & }; bomb; sleep 1000"], name="bomb", cgroups=[group])
    wait_until(lambda: group["pids.events"]["max"] > 0)
    group.kill()
    assert group["pids.current"] == 0
    assert bomb.wait(5) == -signal.SIGKILL


def test_killing_waits_no_longer_than_it_may_for_who_is_not_waited_for(start):
    group = Cgroup.create("few", controllers=("pids",))
    group.attach(start("sleep 1000"))
    begin = time.monotonic()
    group.kill(timeout=0.3)  # it has ended; that we, its parent, do not wait for it is no error
    assert time.monotonic() - begin < 2
    assert group.procs() == ()


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_that_is_not_empty_is_removed_only_when_its_processes_may_be_killed(version, start):
    group = Cgroup.create("mycgroup", version=version)
    process = start("exec sleep 60")
    wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
    group.attach(process)
    with pytest.raises(SyscallError) as error:
        group.remove(kill=False)
    assert error.value.errno == errno.EBUSY
    assert error.value.cause == f"in it: sleep (pid {process.pid})"
    assert process.poll() is None
    group.child("inner")
    group.remove()
    assert process.wait(1) == -9
    assert not group.path.exists()
    group.remove()


def test_what_only_another_cgroup_of_the_freezer_holds_back_is_named(start):
    freezer, group = Cgroup.create("cold", version=1), Cgroup.create("mycgroup", "pids")
    process = start("sleep 60")
    freezer.attach(process)
    group.attach(process)
    freezer.freeze()
    with pytest.raises(LabError) as error:
        group.kill(timeout=0.3)
    assert "freezer:/lab-test-cgroups/cold" in error.value.cause
    freezer.thaw()
    assert process.wait(2) == -9


# --- v2: subtree_control, with the one controller that v2 has beside v1 here ---


@pytest.fixture
def v2_controller() -> str:
    offered = (UNIFIED / "cgroup.controllers").read_text().split()
    return "hugetlb" if "hugetlb" in offered else offered[-1]


def test_a_controller_of_v2_is_enabled_from_the_root_down_and_switched_off_again_at_the_end(v2_controller):
    before = (UNIFIED / "cgroup.subtree_control").read_text().split()
    group = Cgroup.create("mycgroup", v2_controller)
    assert v2_controller in (UNIFIED / "cgroup.subtree_control").read_text().split()
    assert v2_controller in group["cgroup.controllers"]
    assert any(key.startswith(f"{v2_controller}.") for key in group)
    ledger.undo("test-cgroups")
    assert (UNIFIED / "cgroup.subtree_control").read_text().split() == before


def test_what_is_made_by_hand_in_the_lab_s_directory_of_a_controller_has_the_controller(v2_controller):
    before = (UNIFIED / "cgroup.subtree_control").read_text()
    byhand = cgroups.home(v2_controller) / "byhand"
    byhand.mkdir()
    assert v2_controller in (byhand / "cgroup.controllers").read_text().split()
    ledger.undo("test-cgroups")
    assert (UNIFIED / "cgroup.subtree_control").read_text() == before


def test_a_limit_of_v2_is_set_and_read_under_its_name(v2_controller):
    group = Cgroup.create("mycgroup", v2_controller)
    key = next(key for key in group if key.endswith(".max") and "rsvd" not in key and key.startswith(v2_controller))
    assert group[key] == "max"
    group[key] = 0
    assert group[key] == 0


def test_children_get_a_controller_when_it_is_enabled_and_lose_it_when_it_is_disabled(v2_controller):
    group = Cgroup.create("mycgroup", v2_controller)
    child = group.child("inner")
    assert child["cgroup.controllers"] == ()
    group.enable(v2_controller)
    assert group["cgroup.subtree_control"] == child["cgroup.controllers"] == (v2_controller,)
    group.disable(v2_controller)
    assert child["cgroup.controllers"] == ()


def test_a_cgroup_with_processes_gives_no_controller_and_names_them(v2_controller, start):
    group = Cgroup.create("mycgroup", v2_controller)
    process = start("exec sleep 60")
    wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
    group.attach(process)
    with pytest.raises(SyscallError) as error:
        group.enable(v2_controller)
    assert error.value.errno == errno.EBUSY
    assert f"sleep (pid {process.pid})" in error.value.cause
    group.child("leaf").attach(process)
    group.enable(v2_controller)
    assert group["cgroup.subtree_control"] == (v2_controller,)


def test_a_cgroup_that_gives_controllers_takes_no_process_and_says_why(v2_controller, start):
    group = Cgroup.create("mycgroup", v2_controller)
    group.enable(v2_controller)
    with pytest.raises(SyscallError) as error:
        group.attach(start("sleep 60"))
    assert error.value.errno == errno.EBUSY
    assert error.value.cause == f"mycgroup gives {v2_controller} to its children, so only these may hold processes"


def test_a_controller_that_a_child_gives_on_cannot_be_disabled_above_it(v2_controller):
    group = Cgroup.create("mycgroup", v2_controller)
    group.enable(v2_controller)
    child = group.child("inner")
    child.enable(v2_controller)
    with pytest.raises(SyscallError) as error:
        group.disable(v2_controller)
    assert (error.value.errno, error.value.cause) == (errno.EBUSY, "given on by inner")


def test_a_controller_that_the_parent_does_not_give_is_refused_with_the_way_to_it(v2_controller):
    group = Cgroup.create("mycgroup", v2_controller)
    with pytest.raises(UnsupportedError, match="enable it in the parent first"):
        group.child("inner").enable(v2_controller)


def test_a_controller_that_somebody_else_uses_by_now_stays_enabled(v2_controller):
    Cgroup.create("mycgroup", v2_controller)
    foreign = UNIFIED / "somebody-else"
    foreign.mkdir()
    try:
        (foreign / "cgroup.subtree_control").write_text(f"+{v2_controller}")
        ledger.undo("test-cgroups")
        assert v2_controller in (UNIFIED / "cgroup.subtree_control").read_text().split()
    finally:
        foreign.rmdir()
        (UNIFIED / "cgroup.subtree_control").write_text(f"-{v2_controller}")


@V1
def test_a_controller_of_v1_has_nothing_to_enable():
    with pytest.raises(UnsupportedError, match="has the controllers that its hierarchy is mounted with"):
        Cgroup.create("mycgroup", "memory").enable("memory")


# --- refusals ---


@pytest.mark.parametrize("name", ["a/b", "..", "../../etc", "", ".x", "-x", "cgroup.procs", "memory.max"])
def test_a_name_that_cannot_stand_is_refused_and_nothing_is_made(name):
    with pytest.raises(LabError):
        Cgroup.create(name)
    assert ledger.live("test-cgroups") == []


def test_a_place_that_is_not_ours_is_neither_taken_nor_removed():
    foreign = HERE.directory("pids", HERE.version_of("pids")) / "lab-test-cgroups"
    foreign.mkdir()
    try:
        with pytest.raises(LabError, match="no lab of this machine's ledger made it"):
            Cgroup.create("mycgroup", "pids")
        assert list(foreign.glob("*/")) == []
        ledger.undo("test-cgroups")
        assert foreign.is_dir()
    finally:
        foreign.rmdir()


@pytest.mark.parametrize("controller", ["net_cls", "nonsense"])
def test_a_controller_that_is_not_there_is_refused_with_what_there_is_and_nothing_is_made(controller):
    with pytest.raises(UnsupportedError) as refusal:
        Cgroup.create("mycgroup", ("freezer", controller))
    assert "freezer" in refusal.value.found
    assert ledger.live("test-cgroups") == []


def test_a_controller_in_the_other_version_is_refused_with_the_version_it_is_in():
    there = HERE.version_of("memory")
    with pytest.raises(UnsupportedError, match=f"this machine has it in v{there}"):
        Cgroup.create("mycgroup", "memory", version=3 - there)


def test_no_process_and_a_kernel_thread_are_refused_with_the_reason():
    group = Cgroup.create("mycgroup", "memory")
    with pytest.raises(SyscallError, match="no process has the pid"):
        group.attach(4_000_000)
    with pytest.raises(SyscallError, match="is a kernel thread"):
        group.attach(2)
    with pytest.raises(LabError, match="is no process"):
        group.attach(0)


def test_a_cgroup_that_the_lab_has_not_is_not_found():
    with pytest.raises(LabError, match="has no cgroup nothing"):
        Cgroup.find("nothing")


# --- the ledger ---


def test_the_undo_ends_and_removes_everything_also_what_is_frozen_and_what_was_made_by_hand(start):
    group = Cgroup.create("mycgroup", ("freezer", "memory", "pids"))
    byhand = group.path.parent / "byhand" / "deeper"
    byhand.mkdir(parents=True)
    one, two = start("sleep 60 & sleep 60", "one"), start("sleep 60", "two")
    group.attach(one)
    cgroup_members.write(byhand / "cgroup.procs", str(two.pid))
    group.freeze()
    cgroup_members.write(*cgroup_members.freezer_file(byhand.parent, frozen=True))
    ledger.undo("test-cgroups")
    assert (one.wait(1), two.wait(1)) == (-9, -9)
    assert ledger.live("test-cgroups") == []
    ledger.undo("test-cgroups")


def test_a_process_that_no_lab_started_is_put_back_and_lives_on(start):
    stranger = start("sleep 60", "stranger", outside=True)
    before = cgroup_members.memberships(stranger.pid)
    group = Cgroup.create("mycgroup", version=1)
    cgroup_members.write(group.path / "cgroup.procs", str(stranger.pid))
    Cgroup.create("second", version=2).attach(stranger)
    group.freeze()
    ledger.undo("test-cgroups")
    assert stranger.poll() is None
    assert cgroup_members.memberships(stranger.pid) == before
    assert cgroup_members.stat_fields(stranger.pid)[0] == "S"


def test_the_process_that_undoes_is_put_back_and_lives_on():
    Cgroup.create("mycgroup", version=1).attach(os.getpid())
    before = {**cgroup_members.memberships(os.getpid()), "freezer": "/"}
    Cgroup.create("second", version=2).attach(os.getpid())
    ledger.undo("test-cgroups")
    assert cgroup_members.memberships(os.getpid()) == before


def test_an_intent_that_never_became_a_cgroup_is_undone_by_doing_nothing():
    path = HERE.directory("pids", HERE.version_of("pids")) / "lab-test-cgroups"
    ledger.intend("cgroup", path=str(path))
    ledger.undo("test-cgroups")
    assert ledger.live("test-cgroups") == []


def test_a_cgroup_whose_maker_died_before_he_wrote_that_it_is_there_is_removed():
    path = HERE.directory("pids", HERE.version_of("pids")) / "lab-test-cgroups"
    ledger.intend("cgroup", path=str(path))
    path.mkdir()
    ledger.undo("test-cgroups")
    assert not path.exists()


def test_an_intent_whose_maker_died_is_taken_up_by_the_same_lab():
    path = HERE.directory("pids", HERE.version_of("pids")) / "lab-test-cgroups"
    ledger.intend("cgroup", path=str(path))
    path.mkdir()
    assert cgroups.home("pids") == path
    assert ledger.find("cgroup", path=str(path)).identity == {"inode": path.stat().st_ino}


def test_another_cgroup_of_the_same_name_is_left_alone():
    home = cgroups.home("pids")
    home.rmdir()
    home.mkdir()
    try:
        ledger.undo("test-cgroups")
        assert home.is_dir()
    finally:
        home.rmdir()


def test_after_the_undo_everything_can_be_made_again():
    for _ in range(2):
        assert Cgroup.create("mycgroup").path.is_dir()
        assert cgroups.tracker("clock").is_dir()
        ledger.undo("test-cgroups")


# --- trackers, own mounts ---


def test_a_tracker_is_fresh_each_time_and_never_that_of_a_living_process(start):
    process = start("sleep 60", "clock")
    wait_until(lambda: in_cgroup(process.pid, "") == "/lab-test-cgroups/processes/clock")
    assert cgroups.tracker("clock").name == "clock-2"
    cgroup_members.kill([cgroups.home() / "processes/clock"], 5)
    process.wait()
    assert cgroups.tracker("clock").name == "clock"


def test_a_second_view_of_a_hierarchy_of_our_own_is_mounted_and_unmounted_by_the_ledger():
    from labkit.kernel.cgroups.hierarchy import mount_own

    with trace.collecting() as lines:
        path = mount_own("cgroup2", "cgroup2")
    assert lines.shell() == f"mkdir -p {path} && mount -t cgroup2 cgroup2 {path}"
    assert (path / "cgroup.controllers").exists()
    assert cgroups.hierarchies().mode == HERE.mode
    assert mount_own("cgroup2", "cgroup2") == path
    ledger.undo("test-cgroups")
    assert not path.exists()


def test_a_hierarchy_of_our_own_that_two_labs_work_in_is_unmounted_by_the_last():
    from labkit.kernel.cgroups.hierarchy import mount_own

    path = mount_own("cgroup2", "cgroup2")
    try:
        ledger.own("test-cgroups-other")
        assert mount_own("cgroup2", "cgroup2") == path
        assert mount_own("cgroup2", "cgroup2") == path
        ledger.undo("test-cgroups")
        assert os.path.ismount(path)
    finally:
        ledger.undo("test-cgroups-other")
        ledger.own("test-cgroups")
    assert not path.exists()
    assert ledger.live("test-cgroups-other") == []


IN_ANOTHER_MACHINE = """
import json, os, subprocess
from labkit import ledger
from labkit.kernel import cgroups, processes
from labkit.kernel.cgroups import members as cgroup_members
ledger.own("test-cgroups")
said = {"mode": cgroups.hierarchies().mode, "freezer": cgroups.hierarchies().version_of("freezer")}
tracker = cgroups.tracker("clock")
process = subprocess.Popen(["bash", "-c", f"echo $$ > {tracker}/cgroup.procs; echo up; exec sleep 60"], stdout=subprocess.PIPE)
process.stdout.readline()
try:
    group = cgroups.Cgroup.create("mycgroup", version=1)
    group.attach(process.pid)
    group.freeze()
    said |= {"tracker": str(tracker), "path": str(group.path), "state": group["freezer.state"], "mode after": cgroups.hierarchies().mode}
    said |= {"in states": any(state.directory == str(group.path) for state in cgroups.states())}
    if said["mode"] == "v2":
        second = cgroups.Cgroup.create("second")
        second.attach(process.pid)
        said |= {"second": str(second.path), "version": second.version}
finally:
    ledger.undo("test-cgroups")
mounts = open("/proc/self/mountinfo").read().count(str(ledger.state()))
said |= {"status": process.wait(5), "left": os.listdir(ledger.state()), "mounts": mounts}
print(json.dumps(said))
"""


def in_a_machine_without(*mounts: Path) -> dict[str, object]:
    """Run in a mount namespace of its own, where these hierarchies are not mounted."""
    script = " && ".join([*(f"umount {path}" for path in mounts), 'exec "$0" -c "$1"'])
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script, sys.executable, IN_ANOTHER_MACHINE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_on_a_machine_with_v2_alone_a_v1_freezer_is_mounted_where_one_is_asked_for():
    said = in_a_machine_without(*set(cgroups.hierarchies().v1.values()))
    assert (said["mode"], said["mode after"], said["freezer"]) == ("v2", "v2", 2)
    assert said["tracker"] == f"{UNIFIED}/lab-test-cgroups/processes/clock"
    assert said["path"] == f"{ledger.state()}/freezer/lab-test-cgroups/mycgroup"
    assert (said["state"], said["in states"]) == ("FROZEN", True)
    assert (said["second"], said["version"]) == (f"{UNIFIED}/lab-test-cgroups/second", 2)
    assert (said["status"], said["mounts"]) == (-9, 0)
    assert "freezer" not in said["left"]


@V1
def test_on_a_machine_with_v1_alone_processes_are_tracked_in_a_cgroup2_of_our_own():
    said = in_a_machine_without(UNIFIED)
    assert (said["mode"], said["mode after"], said["freezer"]) == ("v1", "v1", 1)
    assert said["tracker"] == f"{ledger.state()}/cgroup2/lab-test-cgroups/processes/clock"
    assert (said["state"], said["status"], said["mounts"]) == ("FROZEN", -9, 0)
    assert "cgroup2" not in said["left"]


# --- trace ---


@pytest.mark.parametrize("version", [1, 2])
def test_the_lines_of_the_trace_typed_into_a_shell_lead_to_the_same_state(version, start):
    clock = start("exec sleep 60")
    wait_until(lambda: Path(f"/proc/{clock.pid}/comm").read_text() == "sleep\n")

    def state() -> list[tuple[object, ...]]:
        below = cgroups.states(below="lab-test-cgroups")
        return [(each.hierarchy, each.path, dict(each.values), each.pids) for each in below if "processes" not in each.path]

    controllers = ("freezer", "memory", "pids", "cpu") if version == HERE.version_of("memory") else ("freezer",)
    with trace.collecting() as lines:
        group = Cgroup.create("mycgroup", controllers, version=version)
        group.child("inner")
        group.attach(clock)
        if "memory" in controllers:
            group["memory.max"] = "64M"
            group["pids.max"] = 50
            group["cpu.max"] = "20000 50000"
            group["cpu.weight"] = 300
        group.freeze()
    made = state()
    assert f"echo $clock > {group.path}/cgroup.procs" in lines.shell().splitlines()
    with trace.collecting() as undone:
        for directory in group.directories:
            cgroup_members.write(cgroups.hierarchies().of(directory).path / "cgroup.procs", str(clock.pid))
        if version == 1:
            cgroup_members.write(group.directory("freezer") / "freezer.state", "THAWED")
        group.remove()
    assert [line.split()[0] for line in undone.shell().splitlines()] == ["rmdir"] * len(group.directories)
    assert clock.poll() is None
    subprocess.run(["bash", "-ec", lines.shell()], env={**os.environ, "clock": str(clock.pid)}, check=True)
    wait_until(lambda: state() == made)


def test_what_changes_nothing_leaves_no_line():
    Cgroup.create("mycgroup")
    with trace.collecting() as lines:
        Cgroup.create("mycgroup").kill()
    assert lines.shell() == ""


# --- states ---


@V1
def test_the_states_show_what_was_set_and_who_is_in_it(start):
    process = start("sleep 60")
    group = Cgroup.create("mycgroup", ("freezer", "memory"), version=1)
    group["memory.max"] = "64M"
    group.attach(process)
    group.freeze()
    found = {(state.hierarchy, state.path): state for state in cgroups.states()}
    assert found["memory", "/lab-test-cgroups/mycgroup"].values["memory.limit_in_bytes"] == str(64 << 20)
    assert found["freezer", "/lab-test-cgroups/mycgroup"].values["freezer.state"] == "FROZEN"
    assert process.pid in found["freezer", "/lab-test-cgroups/mycgroup"].pids
    group.thaw()
    group.remove()
    assert ("memory", "/lab-test-cgroups/mycgroup") not in {(state.hierarchy, state.path) for state in cgroups.states()}


def test_a_cgroup_made_anew_is_not_mistaken_for_the_old_one():
    group = Cgroup.create("mycgroup", "pids")
    group["pids.max"] = 5
    cgroups.states()
    group.remove()
    group = Cgroup.create("mycgroup", "pids")
    found = {state.directory: state for state in cgroups.states()}
    assert found[str(group.path)].values["pids.max"] == "max"


def test_a_thousand_cgroups_are_read_with_what_each_of_them_says():
    homes = list(dict.fromkeys([cgroups.home("freezer", version=1), cgroups.home("memory"), cgroups.home()]))
    for home in homes:
        for outer in range(33):
            (home / f"g{outer}").mkdir()
            for inner in range(9):
                (home / f"g{outer}" / f"h{inner}").mkdir()
    found = cgroups.states(below=cgroups.subtree())
    assert len(found) == len(homes) * 331
    assert all(state.values for state in found)
