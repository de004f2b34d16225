"""What LXD and Incus do beyond the contract: limits in cgroupfs, the map of ids, words with quotes, and whose daemon it is."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import ledger, runtimes
from labkit.errors import LabError
from labkit.host.services import Places, named
from labkit.kernel import namespaces
from labkit.kernel.cgroups import hierarchies
from labkit.kernel.processes import ending
from labkit.runtimes import Runtime, lxd_claims, lxd_daemon, ours
from labkit.runtimes.lxd import Incus, Lxd
from labkit.runtimes.lxd_daemon import Daemon

Root = Callable[[Runtime], Path]
SLEEP = ["sleep", "300"]


def usable(one: Lxd) -> Iterator[Lxd]:
    if named(one.name).only and (why := one.available()):
        pytest.skip(why)
    assert one.available() is None
    yield one
    for container in one.list():
        if container.ours:
            one.stop(container.name, 0)
            one.remove(container.name)


@pytest.fixture(params=[Lxd, Incus], ids=["lxd", "incus"])
def lxd(request: pytest.FixtureRequest, services: Places) -> Iterator[Lxd]:
    yield from usable(request.param())


@pytest.fixture
def incus(services: Places) -> Iterator[Lxd]:
    yield from usable(Incus())


def daemon_and_client(lxd: Lxd) -> tuple[Daemon, str]:
    return lxd_daemon.of_the_labs(lxd.names), lxd.names.client


def test_limits_are_in_cgroupfs_and_the_container_sees_one_cpu(lxd: Lxd, root: Root):
    pid = lxd.start(root(lxd), SLEEP, "small", {"limits.memory": "64MiB", "limits.cpu": "1"}).pid
    version = 2 if hierarchies().mode == "v2" else 1
    memory = next(one for one in hierarchies().mounted if (one.version == 2 if version == 2 else "memory" in one.name.split(",")))
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    path = next(line[2] for line in lines if (line[0] == "0" if version == 2 else "memory" in line[1].split(",")))
    file = "memory.max" if version == 2 else "memory.limit_in_bytes"
    assert int((memory.path / path[1:] / file).read_text()) == 64 << 20
    deadline = time.monotonic() + 10
    while lxd.exec("small", ["nproc"]).stdout != "1\n":  # the daemon deals out the CPUs when it comes to it
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_root_inside_is_the_first_subordinate_id_of_root(lxd: Lxd, root: Root):
    pid = lxd.start(root(lxd), SLEEP, "mapped").pid
    first = next(int(line.split(":")[1]) for line in Path("/etc/subuid").read_text().splitlines() if line.startswith("root:"))
    assert namespaces.uid_map(pid)[0][:2] == (0, first)


@pytest.mark.parametrize("word", ["it's \"both\"", "two\nlines", "", "#hash", "a  b", "-n $HOME `id`"])
def test_any_word_reaches_the_program_as_it_is(lxd: Lxd, root: Root, word: str):
    pid = lxd.start(root(lxd), ["sh", "-c", "while :; do sleep 1; done", "name", word], "words").pid
    assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-3:] == [b"name", word.encode(), b""]


def test_an_instance_of_somebody_else_is_listed_and_neither_stopped_nor_removed(lxd: Lxd, root: Root):
    daemon, client = daemon_and_client(lxd)
    daemon.tell([client, "storage", "create", "canary", "dir"])
    try:
        daemon.tell([client, "init", "canary", "--empty", "--storage", "canary"])
        assert ("canary", False) in [(container.name, container.ours) for container in lxd.list()]
        for verb in (lxd.stop, lxd.remove):
            with pytest.raises(LabError, match="was not made by a lab and stays as it is"):
                verb("canary")
        with pytest.raises(LabError, match="is there already; cause: its state is stopped, and no lab made it"):
            lxd.start(root(lxd), SLEEP, "canary")
        assert daemon.instance("canary") is not None
    finally:
        daemon.tell([client, "delete", "canary"])
        daemon.tell([client, "storage", "delete", "canary"])


def test_an_instance_that_took_the_name_of_one_of_ours_is_not_undone(lxd: Lxd, root: Root):
    lxd.start(root(lxd), SLEEP, "web")
    entry = next(entry for entry in ledger.live() if entry.kind == f"{lxd.name} container")
    daemon, client = daemon_and_client(lxd)
    daemon.tell([client, "config", "set", "web", "user.labkit=another"])
    ledger.undo_one(entry)
    try:
        assert daemon.instance("web") is not None
    finally:
        daemon.tell([client, "delete", "web", "--force"])


def test_one_that_somebody_else_has_started_is_not_used(lxd: Lxd, own_state: Path, tmp_path: Path):
    place = Path("/var/tmp/labkit-canary")  # a socket's path has to be short
    theirs = place / lxd.name
    theirs.mkdir(parents=True)
    program, variable = named(lxd.name).program, f"{lxd.name.upper()}_DIR"
    plain = {key: value for key, value in os.environ.items() if not key.startswith("LABKIT")} | {variable: str(theirs)}
    daemon = subprocess.Popen([program, "--group", "root"], env=plain, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    given = own_state / "services.json"
    before = given.read_text()
    try:
        subprocess.run([program, "waitready", "--timeout", "60"], env=plain, check=True)
        given.write_text(json.dumps({**json.loads(before), "lxd": str(place / "lxd")}))
        assert "was set up by somebody else" in str(lxd.available())
        with pytest.raises(LabError, match="was set up by somebody else"):
            lxd.start(tmp_path, SLEEP, "web")
        assert lxd.name not in [container.runtime for container in runtimes.containers()]
    finally:
        given.write_text(before)
        subprocess.run([program, "shutdown"], env=plain, check=False)
        daemon.wait(30)
        for mount in ("shmounts", "devlxd", "guestapi"):
            subprocess.run(["umount", "-l", theirs / mount], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", place], check=True)


def test_a_daemon_that_is_gone_leaves_the_entry_until_it_answers_again(lxd: Lxd, root: Root):
    init = ending.known(lxd.start(root(lxd), SLEEP, "web").pid)
    entry = next(entry for entry in ledger.live() if entry.kind == f"{lxd.name} container")
    entry.key[lxd.name] = str(root(lxd))
    (root(lxd) / "database").mkdir()
    with pytest.raises(LabError, match=f"does not answer, and keeps what a lab made; remedy: labkit up {lxd.name}"):
        ledger.undo_one(entry)
    (root(lxd) / "database").rmdir()
    assert not ours.lives(init)
    assert entry.id in [each.id for each in ledger.live()]


def test_incus_and_lxd_have_a_container_of_one_name_beside_each_other(incus: Lxd, root: Root):
    both = (Lxd(), incus)
    pids = [one.start(root(one), SLEEP, "web").pid for one in both]
    try:
        assert [[container.pid for container in one.list() if container.name == "web"] for one in both] == [[pid] for pid in pids]
        assert [one.exec("web", ["hostname"]).stdout for one in both] == ["web\n"] * 2
        incus.stop("web", 0)
        incus.remove("web")
        assert [container.state for container in both[0].list() if container.name == "web"] == ["running"]
    finally:
        both[0].stop("web", 0)
        both[0].remove("web")


def test_what_a_person_makes_by_hand_of_a_claimed_name_goes_and_what_was_there_is_refused(services: Places):
    daemon = Daemon(services.lxd)
    for argv in (["lxc", "profile", "create", "theirs"], ["lxc", "storage", "create", "canary", "dir"]):
        daemon.tell(argv)
    try:
        with pytest.raises(LabError, match=r"LXD has theirs among its profiles, .*remedy: lxc profile delete theirs"):
            lxd_claims.claim("theirs")
        lxd_claims.claim("byhand")
        lxd_claims.claim("byhand")
        for argv in (["storage", "create", "byhand", "dir"], ["profile", "create", "byhand"], ["init", "byhand", "--empty", "-sbyhand"]):
            daemon.tell(["lxc", *argv])
        (entry,) = (entry for entry in ledger.live() if entry.kind == "lxd claim")
        ledger.undo_one(entry)
        assert [daemon.ask(f"/1.0/{kind}/byhand") for kind in ("instances", "profiles", "storage-pools")] == [None] * 3
        assert daemon.ask("/1.0/profiles/theirs")
        assert daemon.ask("/1.0/storage-pools/canary")
    finally:
        daemon.tell(["lxc", "profile", "delete", "theirs"])
        daemon.tell(["lxc", "storage", "delete", "canary"])
