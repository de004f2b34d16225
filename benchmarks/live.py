"""The rows of the live views: what a refresh costs, and how long after a change of the kernel's state it is on the screen."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import select
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil

from benchmarks.measure import Contestant, Result, Row, alternate, said

GROUPS, PROCESSES = 200, 500
REFRESHES = 10
"""A second."""

ROUNDS = 20
_SECONDS = 1.0
_FREEZING = {"freezer.state": ("THAWED", "FROZEN"), "cgroup.freeze": ("0", "1")}

SOURCES = ('from labkit import open_lab\nlab = open_lab("2.1")', "lab.live()")
WATCHER = """([what, there]) => {
    window.seenAt = 0;
    const look = () => {
        const found = document.querySelector('.lk-live').textContent.includes(what);
        if (found === there) requestAnimationFrame(() => { window.seenAt = performance.timeOrigin + performance.now(); });
        else requestAnimationFrame(look);
    };
    look();
}"""


def live(room: Path, limits: Path) -> list[Result]:
    """Compare what a refresh costs, and take the times from a change to the pixel."""
    return [*_costs(limits), *_pixels(room)]


def _costs(limits: Path) -> list[Result]:
    """Take the CPU time of whole refreshes, one each tenth of a second, as of a collector that nothing slows down."""
    from labkit.kernel.live.collector import Collector

    work = f"CPU time of a refresh of all live views, {PROCESSES} processes, {GROUPS} cgroups, the tenth part of a second after the last"
    reason = "the events of whatever else runs on the machine are taken in the same process"
    row = Row(work, None, "", 20, limit_seconds=0.05 / REFRESHES, reason=reason)
    with _crowded(limits), selectors.EpollSelector() as selector:
        collector = Collector(selector)
        collector.refresh(time.monotonic(), everything=True)
        contestants: dict[str, Contestant] = {
            "labkit": lambda: _refreshed(collector, selector),
            "lsns": lambda: _children(["lsns"]),
            "systemd-cgtop": lambda: _children(["systemd-cgtop", "--batch", "--iterations=1", "--depth=4"]),
            "watch -n0.1 lsns": _watched,
        }
        result = alternate(row, contestants)
        collector.close()
        return [result, _second()]


def _second() -> Result:
    """Take the CPU time that the collector's process uses in a second in which somebody looks, by its own pace."""
    from labkit.kernel.live import Feed
    from labkit.kernel.live.feed import path

    work = f"CPU time of the collector of the live views in a second, {PROCESSES} processes, {GROUPS} cgroups"
    row = Row(work, None, "", 10, limit_seconds=0.05 * _SECONDS, reason="the events of whatever else runs on the machine")
    with Feed() as feed:
        next(feed.frames())
        collector = next(one for one in psutil.process_iter(["cmdline"]) if str(path()) in (one.info["cmdline"] or []))
        contestants: dict[str, Contestant] = {
            "labkit": lambda: _collected(feed, collector),
            "systemd-cgtop, ten times a second": lambda: _shown(["systemd-cgtop", "--delay=0.1", "--depth=4"]),
            "watch -n0.1 lsns": lambda: _shown(["watch", "-n0.1", "lsns"]),
        }
        return alternate(row, contestants)


def _collected(feed: Any, collector: psutil.Process) -> float:
    before, end = sum(collector.cpu_times()[:4]), time.monotonic() + _SECONDS
    while (left := end - time.monotonic()) > 0:
        if select.select([feed], [], [], left)[0]:
            feed.ready()
    return float(sum(collector.cpu_times()[:4]) - before)


def _shown(argv: list[str]) -> float:
    """Return the CPU time that a command and its children use in a second in a terminal."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with _terminal(argv) as (master, _):
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            _read(master, 0.05)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@contextmanager
def _crowded(limits: Path) -> Iterator[None]:
    """Have some cgroups with processes that sleep in them."""
    from labkit.kernel.cgroups import Cgroup

    groups = [Cgroup.create(f"live{number}") for number in range(GROUPS)]
    crowd = subprocess.Popen([str(limits / "crowd"), str(PROCESSES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert crowd.stdin is not None
    assert crowd.stdout is not None
    try:
        if crowd.stdout.readline() != "ready\n":
            raise RuntimeError(f"the machine does not take {PROCESSES} more processes")
        children = Path(f"/proc/{crowd.pid}/task/{crowd.pid}/children").read_text().split()
        for number, pid in enumerate(children):
            (groups[number % GROUPS].directories[0] / "cgroup.procs").write_text(pid)
        yield
    finally:
        crowd.stdin.close()
        crowd.stdout.close()
        crowd.wait()


def _refreshed(collector: Any, selector: selectors.BaseSelector) -> float:
    """Return the CPU time of a refresh of everything, a tenth of a second after the one before, with the events of that time."""
    collector.refresh(time.monotonic(), everything=True)
    end = time.monotonic() + 1 / REFRESHES
    before, waited = time.process_time(), 0.0
    while (left := end - time.monotonic()) > 0:
        begin = time.process_time()
        ready = selector.select(left)
        waited += time.process_time() - begin
        for key, _ in ready:
            collector.take(key.data, key.fd)
    collector.refresh(time.monotonic(), everything=True)
    return time.process_time() - before - waited


def _children(argv: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm"}, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _watched() -> float:
    """Return the CPU time of one refresh of `watch -n0.1 lsns`."""
    with tempfile.NamedTemporaryFile() as runs:
        seconds = _shown(["watch", "-n0.1", f"echo >> {runs.name}; lsns"])
        return seconds / max(len(runs.read()), 1)


@contextmanager
def _terminal(argv: list[str]) -> Iterator[tuple[int, int]]:
    """Run a command in a terminal of its own; gives the other end of that, and the process."""
    pid, master = pty.fork()
    if not pid:
        os.environ |= {"TERM": "xterm", "COLUMNS": "200", "LINES": "1000"}
        os.execvp(argv[0], argv)
    try:
        yield master, pid
    finally:
        os.kill(pid, signal.SIGTERM)
        with suppress(OSError):
            while os.read(master, 1 << 16):
                pass
        os.waitpid(pid, 0)
        os.close(master)


def _read(master: int, seconds: float) -> bytes:
    return os.read(master, 1 << 16) if select.select([master], [], [], seconds)[0] else b""


def _pixels(room: Path) -> list[Result]:
    """Take the times from a change to the frame of the browser that shows it."""
    with ExitStack() as clear:
        page = clear.enter_context(_page(room))
        taken = {
            "a cgroup is frozen": [_freeze(page) for _ in range(ROUNDS)],
            "a link goes up": [_link_up(page) for _ in range(ROUNDS)],
            "a process ends": [_process_ends(page) for _ in range(ROUNDS)],
        }
    beside = [_beside_lsns() for _ in range(ROUNDS)]
    found = []
    for what, seconds in taken.items():
        lsns = {"watch -n0.1 lsns": beside} if what == "a process ends" else {}
        for name, of in (("median", median), ("95th percentile", lambda some: quantiles(some, n=20)[-1])):
            work = f"{what}, until the pixel in JupyterLab, {name} of {ROUNDS}"
            found.append(Result(Row(work, None, ""), {"labkit": of(seconds), **{other: of(some) for other, some in lsns.items()}}))
    return found


@contextmanager
def _page(room: Path) -> Iterator[Any]:
    """Open a notebook with a live view in JupyterLab, in Chromium."""
    from playwright.sync_api import sync_playwright

    notebooks = room / "notebooks"
    notebooks.mkdir()
    cells = [
        {"cell_type": "code", "id": f"cell-{n}", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for n, source in enumerate(SOURCES)
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (notebooks / "live.ipynb").write_text(json.dumps(notebook))
    server = subprocess.Popen([sys.executable, "-m", "labkit", "start", "--notebooks", notebooks], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1280, "height": 2000})
            page.goto(url.replace("/lab?", "/lab/tree/live.ipynb?") + "&reset")
            page.locator("#jp-bottom-panel").get_by_text(re.compile(r"\| Idle$")).first.wait_for(timeout=60_000)
            page.get_by_text("Run", exact=True).first.click()
            page.get_by_text("Run All Cells", exact=True).click()
            page.locator(".lk-live").wait_for(timeout=60_000)
            yield page
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        said(sys.executable, "-m", "labkit", "clean", "2.1")


def _until_seen(page: Any, text: str, change: Callable[[], object], *, there: bool = True) -> float:
    page.evaluate(WATCHER, [text, there])
    begin = time.time()
    change()
    page.wait_for_function("window.seenAt > 0", timeout=20_000, polling=5)
    return float(page.evaluate("window.seenAt")) / 1000 - begin


def _freeze(page: Any) -> float:
    from labkit.kernel.cgroups.hierarchy import hierarchies

    root = hierarchies().directory("freezer", hierarchies().version_of("freezer") or 2)
    assert root is not None
    home = root / "lab-2.1"
    home.mkdir(exist_ok=True)
    group = home / "pixel"
    group.mkdir()
    sleeper = subprocess.Popen(["sleep", "100"])
    try:
        (group / "cgroup.procs").write_text(str(sleeper.pid))
        name = next(name for name in _FREEZING if (group / name).exists())
        page.locator("tr", has_text="pixel").filter(has_text="running").wait_for(timeout=20_000)
        seconds = _until_seen(page, "■ frozen", lambda: (group / name).write_text(_FREEZING[name][1]))
        (group / name).write_text(_FREEZING[name][0])
    finally:
        sleeper.kill()
        sleeper.wait()
        group.rmdir()
    page.locator("tr", has_text="pixel").wait_for(state="detached", timeout=20_000)
    return seconds


def _link_up(page: Any) -> float:
    said("ip", "link", "add", "pixel0", "type", "bridge")
    try:
        row = page.locator("tr", has_text="pixel0 in host")
        row.filter(has_text="○ down").wait_for(timeout=20_000)
        return _until_seen(page, "link pixel0 in host: down → ", lambda: said("ip", "link", "set", "pixel0", "up"))
    finally:
        said("ip", "link", "delete", "pixel0")
        row.wait_for(state="detached", timeout=20_000)


def _process_ends(page: Any) -> float:
    sleeper = subprocess.Popen(["unshare", "--uts", "sleep", "100"])
    page.locator("tr", has_text=f"sleep {sleeper.pid}").wait_for(timeout=20_000)
    seconds = _until_seen(page, f"sleep {sleeper.pid}", sleeper.kill, there=False)
    sleeper.wait()
    return seconds


def _beside_lsns() -> float:
    """Return how long `watch -n0.1 lsns` takes to show that a process has ended."""
    sleeper = subprocess.Popen(["unshare", "--uts", "sleep", "4321"])
    script = f"lsns -n -t uts -o PID | grep -q -w {sleeper.pid} && echo there || echo gone"
    with _terminal(["watch", "-t", "-n0.1", script]) as (master, _):
        seen = b""
        while b"there" not in seen:
            seen += _read(master, 10)
        begin = time.time()
        sleeper.kill()
        seen = b""
        while b"g" not in seen:  # curses writes only what differs
            seen += _read(master, 10)
        seconds = time.time() - begin
    sleeper.wait()
    return seconds
