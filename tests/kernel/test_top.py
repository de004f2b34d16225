"""`labkit top` in a real terminal: it follows the kernel, pauses, steps back through the last minute, and ends."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pexpect
import pytest

from labkit.course.top import HELP
from labkit.show.frames import TITLES

PATIENCE = 15


@pytest.fixture
def screen() -> Iterator[pexpect.spawn]:
    """Return `labkit top networks` in a terminal of 24 lines."""
    started = pexpect.spawn(sys.executable, ["-m", "labkit", "top", "networks"], dimensions=(24, 80), encoding="utf-8", timeout=PATIENCE)
    started.expect("live, ")
    yield started
    started.close(force=True)


def test_a_link_that_comes_is_shown_and_can_be_stepped_back_from(screen: pexpect.spawn):
    screen.expect(re.escape(HELP))
    subprocess.run(["ip", "link", "add", "top0", "type", "bridge"], check=True)
    try:
        screen.expect("link top0 in host is made")
        screen.send("p")
        screen.expect(r"paused, \d+ s back")
        for _ in range(3):
            screen.send("\x1b[D")
        screen.expect(r"paused, [3-9] s back|paused, \d\d s back")
        screen.send("p")
        screen.expect("live, ")
    finally:
        subprocess.run(["ip", "link", "delete", "top0"], check=True)
    screen.expect("link top0 in host is gone")


def test_q_ends_it_and_gives_the_terminal_back(screen: pexpect.spawn):
    screen.send("q")
    screen.expect(pexpect.EOF)
    screen.close()
    assert screen.exitstatus == 0


def test_it_is_as_wide_as_the_terminal_and_not_as_that_was_when_its_shell_started():
    environment = os.environ | {"COLUMNS": "80", "LINES": "24"}  # as JupyterLab starts a terminal, whatever its place is
    started = pexpect.spawn(
        sys.executable, ["-m", "labkit", "top", "networks"], dimensions=(20, 50), encoding="utf-8", timeout=PATIENCE, env=environment
    )
    try:
        started.expect("live, ")
        for width in (50, 40):
            started.setwinsize(20, width)
            seen, deadline = ["x" * 80], time.monotonic() + PATIENCE
            while len(seen) > 20 or max(map(len, seen)) > width:  # the pictures of the size before are still on their way
                assert time.monotonic() < deadline, seen
                started.expect(r"labkit top[^\x00]*?p pause[^\r\n]*")
                seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", started.after).splitlines()
    finally:
        started.close(force=True)


def test_one_picture_goes_into_a_pipe():
    done = subprocess.run([sys.executable, "-m", "labkit", "top"], capture_output=True, text=True, check=True)
    assert all(title in done.stdout.splitlines() for title in TITLES.values())
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_an_unknown_view_is_an_error_of_one_line():
    done = subprocess.run([sys.executable, "-m", "labkit", "top", "weather"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "there is no live view 'weather'; remedy: one of cgroups" in done.stderr
