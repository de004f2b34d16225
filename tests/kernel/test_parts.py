"""Who keeps a process alive, and who commands those: read from parents and unix sockets, checked with ss."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import show
from labkit.kernel.network.unix_sockets import holders, unix_sockets
from labkit.kernel.xray import parts

SPEAKER = """
import os, socket, subprocess, sys
own, *others = sys.argv[1:]
os.chdir(os.path.dirname(own))
state = open(own + ".db", "w")
server = socket.socket(socket.AF_UNIX); server.bind(own); server.listen()
child = subprocess.Popen(["sleep", "600"]) if not others else None
print(child.pid if child else 0, flush=True)
ends = []
for line in sys.stdin:
    word, path = line.split()
    ends.append(server.accept() if word == "accept" else socket.socket(socket.AF_UNIX))
    if word == "connect": ends[-1].connect(path)
    print("done", flush=True)
if child: child.kill(); child.wait()
"""
"""Listens at its first argument, keeps a child where it is the only one, accepts and connects when it is told to."""


def python(text: str, *argv: object) -> subprocess.Popen[str]:
    """Start a program that runs until its standard input is closed, and whose parent is not this process."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(text), *map(str, argv)], **pipes)


def tell(process: subprocess.Popen[str], *lines: str) -> None:
    for line in lines:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()


def connect(one: subprocess.Popen[str], other: subprocess.Popen[str], path: Path) -> None:
    """Let one process connect to another, and return when both ends are held."""
    tell(one, f"connect {path}")
    tell(other, "accept -")
    assert [one.stdout.readline(), other.stdout.readline()] == ["done\n"] * 2


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[int, int, int, int, Path]]:
    """A process, its watcher, a daemon that commands two watchers who report to it, and a client of the daemon."""
    names = [tmp_path / f"{name}.sock" for name in ("shim", "api", "client", "sibling")]
    shim, api, cli, sibling = names
    watcher, daemon, client, other = processes = [
        python(SPEAKER, shim), python(SPEAKER, api, "daemon"), python(SPEAKER, cli, api), python(SPEAKER, sibling, api)
    ]  # fmt: skip
    pid, *_ = [int(process.stdout.readline()) for process in processes]
    connect(daemon, watcher, shim)
    connect(daemon, other, sibling)
    connect(other, daemon, api)
    connect(client, daemon, api)
    yield pid, watcher.pid, daemon.pid, client.pid, tmp_path
    for process in processes:
        process.communicate(timeout=10)


def test_parents_and_clients_are_found_up_to_the_last_client(kept: tuple[int, int, int, int, Path]) -> None:
    pid, watcher, daemon, client, place = kept
    found = parts(pid)
    assert [part.member.pid for part in found] == [client, daemon, watcher, pid]
    assert [part.tie for part in found] == ["client", "client", "parent", "first process"]
    assert [part.to for part in found] == [daemon, watcher, pid, None]
    assert [part.at for part in found] == [f"{place}/api.sock", f"{place}/shim.sock", "", ""]
    assert [part.listens for part in found[:3]] == [(f"{place}/{name}.sock",) for name in ("client", "api", "shim")]
    assert {part.directory for part in found[:3]} == {str(place)}


def test_a_watcher_that_reports_to_the_daemon_does_not_command_it(kept: tuple[int, int, int, int, Path]) -> None:
    connected = [each for each in unix_sockets() if each.address == f"{kept[4]}/api.sock" and each.peer]
    assert len(connected) == 2
    assert len(parts(kept[0])) == 4


def test_the_sockets_are_those_of_ss(kept: tuple[int, int, int, int, Path]) -> None:
    said = subprocess.run(["ss", "-Hxlp"], check=True, capture_output=True, text=True).stdout
    path = f"{kept[4]}/api.sock"
    line = next(line for line in said.splitlines() if path in line)
    ours = next(each for each in unix_sockets() if each.address == path and each.listens)
    assert str(ours.inode) in line.split()
    assert holders([kept[2]])[ours.inode] == (kept[2],)
    assert f"pid={kept[2]}," in line


def test_the_view_fits_80_columns_and_says_what_ties_them(kept: tuple[int, int, int, int, Path]) -> None:
    view = show.parts_view("kept", parts(kept[0]))
    assert max(map(len, str(view).splitlines())) <= 80
    assert re.search(r"\| speaks to python\S* at ", str(view))
    assert "| parent of sleep" in str(view)
    assert f"sleep (pid {kept[0]}), the first process" in str(view)
    assert str(kept[0]) in view.html
