"""The fixture that watches every test of this room catches each kind of thing left behind, and what was taken away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

BEGIN = """
import os, socket, subprocess
from pathlib import Path
import pytest
import leaks
from leaks import nothing_left
from labkit import ledger

leaks.PATIENCE = 0.3
kept = []

def sh(line):
    subprocess.run(["sh", "-c", line], check=True)

@ledger.undoes("test link")
def remove(entry):
    sh("ip link delete " + entry.key["name"])

@pytest.fixture(scope="session", autouse=True)
def tidy():
    sh("mkdir -p MOUNTED && mount -t tmpfs leaking MOUNTED")
    yield
    for child in kept[:]:
        if isinstance(child, subprocess.Popen):
            child.kill()
            child.wait()
    for line in TIDY:
        sh(line)
"""

CASES = {
    "mount": ("sh('mkdir DIRECTORY && mount -t tmpfs leaking DIRECTORY')", "umount DIRECTORY",
              "mount left behind: DIRECTORY (tmpfs leaking /"),
    "mount_taken_away": ("sh('umount MOUNTED')", "rmdir MOUNTED", "mount taken away: MOUNTED (tmpfs leaking /"),
    "network_namespace": ("sh('ip netns add leaking')", "ip netns delete leaking", "network namespace left behind: leaking"),
    "link": ("sh('ip link add leaking type bridge')", "ip link delete leaking", "link left behind: leaking"),
    "address": ("sh('ip address add 10.99.0.1/32 dev lo')", "ip address delete 10.99.0.1/32 dev lo", "address or route left behind: 1: lo"),
    "nft_table": ("sh('nft add table ip leaking')", "nft delete table ip leaking", "nft left behind: table ip leaking {"),
    "cgroup": ("Path('CGROUP/lab-x/leaking').mkdir(parents=True)", "rmdir CGROUP/lab-x/leaking CGROUP/lab-x",
               "cgroup left behind: CGROUP/lab-x/leaking"),
    "cgroup_elsewhere": ("Path('CGROUP/leaking').mkdir()", "rmdir CGROUP/leaking", "cgroup left behind: CGROUP/leaking"),
    "child": ("kept.append(subprocess.Popen(['sleep', '1234']))", "true", "child process left behind: sleep 1234"),
    "child_not_waited_for": ("kept.append(subprocess.Popen(['true']))", "true", "child process left behind: true (ended, not waited for)"),
    "open_file": ("kept.append(open('/etc/hostname'))", "true", "open file left behind: /etc/hostname"),
    "socket": ("kept.append(socket.socketpair())", "true", "open file left behind: socket"),
    "what_the_ledger_names": ("""
    with ledger.making("test link", name="leaking2"):
        sh("ip link add leaking2 type bridge")""", "test ! -e /sys/class/net/leaking2", "link left behind: leaking2"),
}  # fmt: skip

CLEAN = """
def test_after_the_ledger_was_undone():
    assert not Path("/sys/class/net/leaking2").exists()

def test_clean():
    sh("ip netns add clean && ip netns exec clean ip link set lo up && ip netns delete clean")
    sh("ip link add clean1 type veth peer name clean2 && ip link delete clean1")
    subprocess.run(["true"], check=True)
    with open("/etc/hostname"):
        os.close(os.dup(0))
"""


def cgroup():
    """Return the mount point of some hierarchy."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        if right.split()[0] in ("cgroup", "cgroup2"):
            return left.split()[4]
    raise AssertionError("no cgroup hierarchy is mounted")


def filled(text, room):
    for word, value in {"CGROUP": cgroup(), "DIRECTORY": f"{room}/leaking", "MOUNTED": f"{room}/mounted"}.items():
        text = text.replace(word, value)
    return text


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Run the leaking tests, one after the other, in a pytest of their own that the fixture watches; give what it said."""
    room = tmp_path_factory.mktemp("inner")
    cases = "".join(f"\ndef test_{name}():\n    {act.strip()}\n" for name, (act, _, _) in CASES.items())
    tidy = [line for _, line, _ in CASES.values()]
    (room / "test_inner.py").write_text(filled(f"{BEGIN}\nTIDY = {tidy!r}\n{cases}{CLEAN}", room))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
        "LABKIT_STATE": str(room / "state"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    argv = [sys.executable, "-m", "pytest", "-rEfp", "-p", "no:cacheprovider", "--rootdir", str(room), str(room / "test_inner.py")]
    return room, subprocess.run(argv, env=environment, cwd=room, capture_output=True, text=True).stdout


@pytest.mark.parametrize("case", CASES)
def test_a_test_that_leaves_this_behind_is_failed_with_its_name(watched, case):
    room, said = watched
    errors = dict(part.split(" ", 1) for part in said.split("ERROR at teardown of test_")[1:])
    assert filled(CASES[case][2], room) in errors[case], said


def test_a_leak_is_charged_to_the_test_that_left_it_and_clean_ones_pass(watched):
    _, said = watched
    assert f"{len(CASES) + 2} passed, {len(CASES)} errors" in said, said
    assert "ERROR test_inner.py::test_clean" not in said
    assert "ERROR test_inner.py::test_after_the_ledger_was_undone" not in said
