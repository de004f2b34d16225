"""The collector of the live views: what the kernel tells by events is seen by them, what is shown is true, and it ends with who looks."""

import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import ledger
from labkit.kernel import processes
from labkit.kernel.cgroups import Cgroup
from labkit.kernel.cgroups.hierarchy import hierarchies
from labkit.kernel.live import Feed, Frame, feed
from labkit.kernel.live import cgroups as live_cgroups
from labkit.kernel.live import collector as collecting
from labkit.kernel.live import networks as live_networks
from labkit.kernel.live import processes as live_processes
from labkit.kernel.live.collector import Collector

PATIENCE = 10.0
NEVER = 1e9

LOOK = """
import sys
from labkit.kernel.live import Feed
with Feed() as feed:
    for frame in feed.frames():
        sys.stdout.write(f"{frame.number}\\n")
        sys.stdout.flush()
"""

WRITE = """
import sys, time
with open(sys.argv[1], "a") as file:
    while True:
        file.write("more")
        file.flush()
        time.sleep(0.05)
"""


class Told:
    """A collector that reads nothing by itself: whatever it sees, the kernel told it of."""

    def __init__(self) -> None:
        self.selector = selectors.EpollSelector()
        self.collector = Collector(self.selector)
        self.mounts = select.epoll()
        self.mounts.register(self.collector.overlays.mountinfo, select.EPOLLPRI | select.EPOLLERR)
        self.selector.register(self.mounts.fileno(), selectors.EVENT_READ, "mounts")
        self.collector.refresh(time.monotonic(), everything=True)
        for part in self.collector._parts.values():
            part.told = False

    def until(self, seen: Callable[[Frame], object]) -> set[str]:
        """Wait for events, and read the parts that they tell of, until something is seen; return the kinds of event that came."""
        kinds: set[str] = set()
        deadline = time.monotonic() + PATIENCE
        while not seen(self.collector.frame):
            ready = self.selector.select(deadline - time.monotonic())
            assert ready, f"no event of the kernel, but {kinds or 'none'}"
            for key, _ in ready:
                kinds.add(key.data)
                if key.data == "mounts":
                    self.mounts.poll(0)
                    self.collector.mounted()
                else:
                    self.collector.take(key.data, key.fd)
            for part in self.collector._parts.values():
                part.at = 0.0 if part.told else NEVER  # one that no event asked for is not due
            self.collector.refresh(time.monotonic())
        return kinds

    def close(self) -> None:
        self.collector.close()
        self.selector.close()
        self.mounts.close()


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    before = ledger.owner()
    ledger.own("test-live")
    yield
    ledger.undo("test-live")
    ledger.own(before)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    for module in (live_cgroups, live_networks):
        monkeypatch.setattr(module, "REST", NEVER)
    monkeypatch.setattr(live_cgroups, "BETWEEN", NEVER)
    monkeypatch.setattr(live_processes, "YOUNG", 0.0)
    one = Told()
    yield one
    one.close()


@pytest.fixture
def frames() -> Iterator[Feed]:
    with Feed() as one:
        yield one
    gone(collectors)


def collectors() -> list[int]:
    """Return the collectors of this state directory that run."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0") if entry.isdigit() else []
        except OSError:
            continue
        if b"labkit.kernel.live" in words and os.fsencode(feed.path()) in words:
            found.append(int(entry))
    return found


def gone(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while found := what():
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def until(frames: Feed, seen: Callable[[Frame], object]) -> Frame:
    deadline = time.monotonic() + PATIENCE
    for frame in frames.frames():
        if seen(frame):
            return frame
        assert time.monotonic() < deadline
    raise AssertionError("the collector has ended")


def state(frame: Frame, name: str) -> str | None:
    return next((row.state for path, row in frame.cgroups.items() if path.endswith(f"/{name}")), None)


@pytest.mark.parametrize("version", [each for each in (1, 2) if hierarchies().directory("freezer", each)])
def test_a_cgroup_that_is_made_filled_and_frozen_is_seen_by_events_alone(told: Told, version: int):
    group = Cgroup.create("watched", ("freezer",), version=version)
    told.until(lambda frame: state(frame, "watched") == "")
    sleeper = processes.start(["sleep", "100"], name="sleeper")
    group.attach(sleeper)
    told.until(lambda frame: state(frame, "watched") == "running")
    group.freeze()
    assert "cgroups" in told.until(lambda frame: state(frame, "watched") == "frozen")
    group.thaw()
    told.until(lambda frame: state(frame, "watched") == "running")
    sleeper.kill()
    group.remove()
    told.until(lambda frame: state(frame, "watched") is None)


def test_a_link_that_is_made_goes_up_and_loses_its_carrier_is_seen_by_events(told: Told):
    def link(frame: Frame) -> str | None:
        states = {one.ifname: one.state for row in frame.networks.values() for one in row.traffic}
        return states.get("live0")

    subprocess.run(["ip", "link", "add", "live0", "type", "veth", "peer", "name", "live1"], check=True)
    try:
        told.until(lambda frame: link(frame) == "down")
        subprocess.run(["ip", "link", "set", "live0", "up"], check=True)
        told.until(lambda frame: link(frame) == "no carrier")
        subprocess.run(["ip", "link", "set", "live1", "up"], check=True)
        assert told.until(lambda frame: link(frame) == "up") == {"networks"}
    finally:
        subprocess.run(["ip", "link", "delete", "live0"], check=True)
    told.until(lambda frame: link(frame) is None)


def test_the_end_of_a_process_is_told_by_its_pidfd(told: Told):
    sleeper = subprocess.Popen(["sleep", "100"])
    told.collector.refresh(time.monotonic(), everything=True)
    assert told.collector.frame.processes[str(sleeper.pid)].comm in ("sleep", "python", Path(sys.executable).name)
    sleeper.kill()
    assert "pidfd" in told.until(lambda frame: str(sleeper.pid) not in frame.processes)
    sleeper.wait()


def test_an_overlay_is_told_when_it_is_mounted_and_its_files_when_they_come(told: Told, tmp_path: Path):
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"], check=True)
    try:
        assert "mounts" in told.until(lambda frame: str(tmp_path / "upper") in frame.layers)
        (tmp_path / "merged/new").write_text("something")
        key = str(tmp_path / "upper")
        assert "layers" in told.until(lambda frame: [file.path for file in frame.layers[key].files] == ["new"])
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)
    told.until(lambda frame: str(tmp_path / "upper") not in frame.layers)


def test_a_file_that_is_being_written_is_shown_as_such(frames: Feed, tmp_path: Path):
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/log").write_text("old\n")
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"], check=True)
    writer = subprocess.Popen([sys.executable, "-c", WRITE, tmp_path / "merged/log"])
    try:
        shown = until(frames, lambda frame: any(file.written for row in frame.layers.values() for file in row.files))
        (row,) = [row for row in shown.layers.values() if row.upper == str(tmp_path / "upper")]
        assert ([file.path for file in row.files], row.lowers) == (["log"], (str(tmp_path / "lower"),))
    finally:
        writer.kill()
        writer.wait()
        subprocess.run(["umount", tmp_path / "merged"], check=True)


def test_what_a_group_uses_is_counted(frames: Feed):
    group = Cgroup.create("busy", ("pids", "cpu"))
    spin = processes.start(["sh", "-c", "while :; do :; done"], name="spin")
    group.attach(spin)
    measured = until(frames, lambda frame: any(row.path.endswith("/busy") and row.tasks == 1 for row in frame.cgroups.values()))
    assert next(row for row in measured.cgroups.values() if row.path.endswith("/busy")).pids == (spin.pid,)
    until(frames, lambda frame: any((row.cpu or 0) > 0.1 and row.path != "/" for row in frame.cgroups.values()))
    spin.kill()
    group.remove()


def test_a_process_in_namespaces_of_its_own_and_its_network_are_shown(frames: Feed):
    apart = processes.start(["sleep", "100"], new=("net", "uts"), name="apart")
    seen = until(frames, lambda frame: {"net", "uts"} <= set(getattr(frame.processes.get(str(apart.pid)), "own", ())))
    inode = dict(seen.processes[str(apart.pid)].namespaces)["net"]
    until(frames, lambda frame: str(inode) in frame.networks)
    apart.kill()
    until(frames, lambda frame: str(apart.pid) not in frame.processes)
    until(frames, lambda frame: str(inode) not in frame.networks)  # nothing here keeps the namespace alive


def test_all_who_look_share_one_collector_and_it_ends_with_the_last_of_them():
    with Feed() as one:
        next(one.frames())
        (pid,) = collectors()
        with Feed() as other:
            next(other.frames())
            assert collectors() == [pid]
        next(one.frames())
        assert collectors() == [pid]
    gone(collectors)
    assert not feed.path().exists()


def test_it_ends_when_who_looks_is_killed():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    viewer = subprocess.Popen([sys.executable, "-c", LOOK], stdout=subprocess.PIPE, env=environment)
    assert viewer.stdout is not None
    assert viewer.stdout.readline()
    assert len(collectors()) == 1
    viewer.send_signal(signal.SIGKILL)
    viewer.wait()
    viewer.stdout.close()
    gone(collectors)


def test_one_who_looks_and_does_not_read_holds_nobody_up(frames: Feed):
    with Feed():
        first = next(frames.frames()).number
        until(frames, lambda frame: frame.number > first + 20)


def test_a_part_that_costs_much_is_read_less_often():
    def costly(_: float) -> bool:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass
        return False

    part = collecting._Part("costly", costly, share=0.01)
    for now in range(100, 112):
        part.run(float(now))
    assert part.interval >= 1.0
    assert part.due() > 111.0 + 1.0
    cheap = collecting._Part("cheap", lambda _: False, share=0.01)
    for now in range(100, 112):
        cheap.run(float(now))
    assert (cheap.interval, cheap.due()) == (collecting.INTERVAL, 111.0 + collecting.INTERVAL)
    cheap.told = True
    assert cheap.due() == 111.0 + collecting.PROMPT  # what an event asks for comes sooner


def test_looking_leaves_no_namespace_and_no_mount_busy(frames: Feed, tmp_path: Path):
    subprocess.run(["ip", "netns", "add", "livebusy"], check=True)
    until(frames, lambda frame: any(row.state.name == "livebusy" for row in frame.networks.values()))
    subprocess.run(["ip", "netns", "delete", "livebusy"], check=True)
    until(frames, lambda frame: not any(row.state.name == "livebusy" for row in frame.networks.values()))
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
    subprocess.run(["umount", tmp_path], check=True)


