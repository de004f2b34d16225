"""The table of the runtimes says what the tools of the field say of the process that runs, and leaves nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit import ledger, runtimes, show
from labkit.errors import LabError
from labkit.host.services.places import Places
from labkit.kernel.xray import Machine
from labkit.kernel.xray.records import Member
from labkit.runtimes import Runtime, comparison

ROOT = Path(__file__).parents[2]
KINDS = {"mnt": "mount"}


def said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def root_of(pid: int) -> list[str]:
    """Return what findmnt needs to find the mount of a root directory: its own namespace, or where a chroot is on the host."""
    link = os.readlink(f"/proc/{pid}/root")
    return [f"--task={pid}", "--mountpoint=/"] if link == "/" else ["--target", link]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    """Let other tools look at each process while it runs, just before its container is ended."""
    seen: dict[str, dict] = {}
    end = comparison._end

    def look_and_end(runtime: Runtime) -> None:
        pid = runtimes.pid(f"{runtime.name}:{comparison.OWNER}")
        seen[runtime.name] = {
            "pid": pid,
            "lsns": dict(line.split() for line in said("lsns", "--noheadings", "--output=TYPE,NS", f"--task={pid}").splitlines()),
            "host": dict(line.split() for line in said("lsns", "--noheadings", "--output=TYPE,NS", f"--task={os.getpid()}").splitlines()),
            "mounts": Path(f"/proc/{pid}/mountinfo").read_text().count("\n"),
            "fstype": said("findmnt", "--noheadings", "--output=FSTYPE", *root_of(pid)).split()[-1],
            "status": dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line),
            "uid_map": Path(f"/proc/{pid}/uid_map").read_text().split(),
            "cgroup": Path(f"/proc/{pid}/cgroup").read_text(),
            "cmdline": Path(f"/proc/{pid}/cmdline").read_text(),
        }
        end(runtime)

    monkeypatch.setattr(comparison, "_end", look_and_end)
    return seen


@pytest.mark.usefixtures("services")
def test_each_row_says_what_lsns_findmnt_and_proc_say_of_the_running_process(looked: dict[str, dict]):
    found = comparison.compare(starts=1)
    assert [row.runtime for row in found.rows] == list(runtimes.ALL)
    ran = [row for row in found.rows if row.xray]
    assert {row.runtime for row in found.rows if not row.absent} == set(looked), [row.failed for row in found.rows]
    for row in ran:
        other, xray = looked[row.runtime], row.xray
        assert (xray.process.pid, tuple(other["cmdline"].split("\0")[:2])) == (other["pid"], xray.process.argv)
        assert {each.kind: str(each.inode) for each in xray.namespaces} == {KINDS.get(k, k): ns for k, ns in other["lsns"].items()}
        assert {each.kind for each in xray.namespaces if each.own} == {
            KINDS.get(k, k) for k, ns in other["lsns"].items() if ns != other["host"][k]
        }
        assert (len(xray.mounts), xray.root.mount.fstype) == (other["mounts"], other["fstype"])
        assert xray.process.pids == tuple(map(int, other["status"]["NSpid"].split()))
        assert len(xray.security.capabilities["effective"]) == int(other["status"]["CapEff"], 16).bit_count()
        assert {"disabled": "0", "strict": "1", "filter": "2"}[xray.security.seccomp] == other["status"]["Seccomp"]
        assert [number for line in xray.maps.uid for number in line] == list(map(int, other["uid_map"]))
        assert all(f":{place.path}\n" in other["cgroup"] for place in xray.cgroups.places)
        assert 0 < row.seconds < 60
    assert all(len(line) <= 80 for line in str(show.comparison_view(found)).splitlines())
    assert ledger.live(comparison.OWNER) == []


def test_what_watches_over_a_container_is_told_and_we_are_not():
    rows = {row.runtime: row for row in comparison.compare(["chroot", "lxc", "nspawn"], starts=1).rows}
    assert rows["chroot"].stays == rows["chroot"].daemons == ()
    assert [each.argv[0].split(" /")[0] for each in rows["lxc"].stays] == ["[lxc monitor]"]
    assert [each.comm for each in rows["nspawn"].stays] == ["systemd-nspawn"]


def test_a_daemon_is_who_listens_on_the_socket(services: Places):
    machine = Machine()
    daemons = comparison._daemons("docker", (), machine)
    assert {each.comm for each in daemons} == {"containerd", "dockerd"}
    shim = Member(1, 0, (1,), 0, "containerd-shim", ("containerd-shim", "-address", str(services.containerd)))
    assert comparison._daemons("runc", (shim,), machine) == tuple(each for each in daemons if each.comm == "containerd")
    assert comparison._daemons("runc", (), machine) == ()


def test_a_tool_that_is_not_here_is_na_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for tool in ("busybox", "chroot"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}" if Path(f"/usr/bin/{tool}").exists() else f"/usr/sbin/{tool}")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = comparison.compare(["nspawn", "chroot"], starts=1)
    assert [(row.runtime, row.absent, row.xray is None) for row in found.rows] == [
        ("nspawn", "no command systemd-nspawn in PATH", True),
        ("chroot", "", False),
    ]
    assert re.search(r"nspawn +n/a: no command systemd-nspawn in PATH", str(show.comparison_view(found)))


def test_a_runtime_whose_start_fails_has_the_error_in_one_line_and_the_next_has_its_turn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(comparison, "ARGV", ("nosuch", "1000"))
    found = comparison.compare(["chroot", "lxc"], starts=1)
    assert [(row.xray, row.seconds) for row in found.rows] == [(None, None)] * 2
    assert all(re.fullmatch(r"execve\(.*ENOENT.*cause: there is no nosuch in .*", row.failed) for row in found.rows)
    assert ledger.live(comparison.OWNER) == []


def test_an_unknown_runtime_starts_nothing():
    with pytest.raises(LabError, match="there is no runtime 'dockr'; remedy: one of chroot"):
        comparison.compare(["chroot", "dockr"], starts=1)


def test_the_page_keeps_what_it_says_of_another_kind_of_machine():
    found = comparison.compare(["chroot"], starts=1)
    page = show.comparison_page(found, "# Old title\n\n## systemd of another kind, cgroups v2\n\nkept\n")
    assert "## systemd of another kind, cgroups v2\n\nkept\n" in page
    assert f"## {found.init}, cgroups {found.cgroups}\n" in page
    assert show.comparison_page(found, page) == page
    assert json.loads(show.comparison_json(found))["rows"][0]["xray"]["process"]["comm"] == "sleep"


def begun(*names: str) -> subprocess.Popen[str]:
    """Start `labkit compare` and return once it has its first container."""
    interruptible = ["env", "--default-signal=INT"]  # of a shell's background it would be ignored
    argv = [*interruptible, sys.executable, "-m", "labkit", "compare", *names]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    deadline = time.monotonic() + 20
    while not any("container" in entry.kind for entry in ledger.live(comparison.OWNER)):
        assert process.poll() is None
        assert time.monotonic() < deadline
    return process


def left() -> list[str]:
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").rglob("lab-compare")]
    running = subprocess.run(["pgrep", "-af", f"{ledger.state()}"], capture_output=True, text=True).stdout.splitlines()
    trees = [str(path) for path in ledger.state().glob("compare") if path.exists()]
    return [*cgroups, *running, *trees, *map(str, ledger.live(comparison.OWNER))]


@pytest.mark.parametrize("name", ["lxc", "nspawn"])
def test_after_kill_9_in_the_middle_clean_leaves_nothing(name: str):
    process = begun(name)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = subprocess.run([sys.executable, "-m", "labkit", "clean"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert left() == []


def test_ctrl_c_ends_it_and_leaves_nothing():
    process = begun("nspawn", "lxc", "nspawn")
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1].splitlines()[-1] == "labkit: interrupted"
    assert process.returncode == 130
    assert left() == []
