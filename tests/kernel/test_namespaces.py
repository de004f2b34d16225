"""The namespaces of the machine, read from /proc, beside what lsns(8) and ls say."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labkit import ledger
from labkit.errors import LabError
from labkit.kernel import credentials, namespaces
from labkit.kernel.processes import launching, names, start

SLEEP = ["sleep", "1000"]


@pytest.fixture(autouse=True)
def own_lab() -> Iterator[None]:
    """Let each test belong to a lab, and end all that it started."""
    before = ledger.owner()
    ledger.own("namespaces-test")
    yield
    launching.close()
    ledger.undo("namespaces-test")
    ledger.own(before)


def of_lsns() -> dict[tuple[str, int], tuple[int, int]]:
    """Return (kind, inode) to (number of processes, lowest pid), as lsns(8) counts them."""
    words = {kind.file: kind.name for kind in namespaces.KINDS.values()}
    done = subprocess.run(["lsns", "--json", "--output", "NS,TYPE,NPROCS,PID"], check=True, capture_output=True, text=True)
    rows = json.loads(done.stdout)["namespaces"]
    return {(words[row["type"]], int(row["ns"])): (int(row["nprocs"]), int(row["pid"])) for row in rows if row["pid"]}


def test_the_inventory_says_what_lsns_says() -> None:
    process = start(SLEEP, name="all", new=list(namespaces.KINDS), uid_map=[(0, 1000, 1)])
    stable = {(kind, inode) for kind, inode in process.namespaces().items()}
    read, other = {(state.kind, state.inode): state.pids for state in namespaces.inventory()}, of_lsns()
    assert {place: (len(read[place]), read[place][0]) for place in stable} == {place: other[place] for place in stable}
    assert {place for place, pids in read.items() if pids} == set(other)


def test_the_inventory_knows_owner_and_maker() -> None:
    process = start(SLEEP, new=["user", "uts"], uid_map=[(0, 1000, 1)])
    states = {state.inode: state for state in namespaces.inventory()}
    mine, machine = process.namespaces(), namespaces.of("self")
    assert states[mine["uts"]].owner == mine["user"]
    assert states[mine["user"]].owner == machine["user"]
    assert states[mine["user"]].uid == 0
    assert states[machine["uts"]].owner == machine["user"]
    assert states[mine["uts"]].pids == (process.pid,)


def test_a_namespace_that_only_a_file_keeps_alive_is_found_by_its_path() -> None:
    subprocess.run(["ip", "netns", "add", "namespaces-test"], check=True)
    try:
        inode = os.stat("/run/netns/namespaces-test").st_ino
        state = next(state for state in namespaces.inventory() if state.inode == inode)
        assert (state.kind, state.pids, state.path) == ("net", (), "/run/netns/namespaces-test")
        assert state.owner == namespaces.of("self")["user"]
    finally:
        subprocess.run(["ip", "netns", "delete", "namespaces-test"], check=True)


def test_shared_tells_for_each_kind_whether_it_is_the_same() -> None:
    process = start(SLEEP, new=["uts", "ipc"])
    assert {kind for kind, same in namespaces.shared("self", process.pid).items() if not same} == {"uts", "ipc"}


def test_the_namespaces_of_a_process_are_those_in_proc() -> None:
    links = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    read = namespaces.of("self")
    assert {row.file: f"{row.file}:[{read[kind]}]" for kind, row in namespaces.KINDS.items()}.items() <= links.items()


def test_a_process_that_is_not_there_is_named() -> None:
    with pytest.raises(LabError, match="there is no process 4194305"):
        namespaces.of(4194305)


def test_the_processes_carry_the_names_of_the_lab_and_their_numbers_inside() -> None:
    process = start(SLEEP, name="clock", new=["pid"])
    state = namespaces.processes(pids=[process.pid], names=names())[0]
    assert (state.name, state.comm, state.argv, state.pid_inside) == ("clock", "sleep", ("sleep", "1000"), 1)
    assert state.ppid == launching.running().pid
    assert state.cgroups[""].endswith("/processes/clock")
    assert replace(state, state="") == replace(process.state(), state="")  # it may have gone to sleep in between
    assert process.pid in {other.pid for other in namespaces.processes()}


def test_credentials_inside_a_user_namespace_are_those_of_root_over_what_it_owns() -> None:
    process = start(SLEEP, new=["user"], uid_map=[(0, 1000, 1)])
    ids = credentials.ids(process.pid)
    assert (ids.uid, ids.groups) == ((1000,) * 4, ())
    assert credentials.lacking(["CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"], process.pid) == ()
    assert Path(f"/proc/{process.pid}/status").exists()


def test_limits_given_to_a_process_are_read_back() -> None:
    process = start(SLEEP, rlimits={"RLIMIT_NPROC": (30, 40), "RLIMIT_CORE": 0})
    limits = credentials.rlimits(process.pid)
    assert (limits["RLIMIT_NPROC"], limits["RLIMIT_CORE"]) == ((30, 40), (0, 0))
