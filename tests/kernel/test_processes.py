"""Processes in namespaces, cgroups and roots of their own, started by the launcher, and ended with all they started."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import ledger, trace
from labkit.errors import CommandError, LabError, SyscallError
from labkit.kernel import cgroups, namespaces, processes
from labkit.kernel.processes import Process, launching, start

SLEEP = ["sleep", "1000"]
MACHINE = namespaces.of("self")


@pytest.fixture(autouse=True)
def own_lab() -> Iterator[None]:
    """Let each test belong to a lab, and end all that it started."""
    before = ledger.owner()
    ledger.own("processes-test")
    yield
    launching.close()
    ledger.undo("processes-test")
    ledger.own(before)


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        select.select([], [], [], 0.01)


def gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def status_of(pid: int, field: str) -> str:
    return re.search(rf"^{field}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE).group(1)


# --- running, output, end ---


def test_a_process_runs_in_its_tracker_and_tells_its_status() -> None:
    process = start(["sh", "-c", "echo out; echo err >&2; cat /proc/self/cgroup; exit 3"], name="clock")
    assert process.wait(10) == 3
    assert process.status == 3
    assert not process.alive
    assert process.output().startswith("out\nerr\n")
    assert re.search(r"^0::/.*processes/clock$", process.output(), re.MULTILINE)


def test_a_process_that_a_signal_ended_has_the_negative_number_as_status() -> None:
    process = start(SLEEP)
    process.signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    with pytest.raises(LabError, match="has ended"):
        process.signal(signal.SIGTERM)


def test_waiting_for_a_process_that_runs_on_says_so() -> None:
    with pytest.raises(LabError, match=r"nap \(pid \d+\) still runs after 0\.1 s"):
        start(SLEEP, name="nap").wait(0.1)


def test_output_goes_to_a_file_and_can_be_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "clock.log"
    log.write_text("of an earlier one")
    process = start(["sh", "-c", "for i in 1 2 3; do echo tick $i; sleep 0.05; done"], name="clock", stdout=log)
    assert process.wait_output(r"^tick (\d)$").group(1) == "1"
    assert process.wait_output(r"^tick 3$")
    assert process.wait() == 0
    assert log.read_text() == process.output() == "tick 1\ntick 2\ntick 3\n"


def test_waiting_for_output_that_never_comes_shows_the_last_lines() -> None:
    process = start(["sh", "-c", "echo last words; exit 4"])
    with pytest.raises(LabError, match=r"ended with status 4 and never wrote 'tick'.*last words"):
        process.wait_output("tick")


def test_standard_input_is_empty_unless_given() -> None:
    assert start(["cat"]).wait(10) == 0
    read_end, write_end = os.pipe()
    os.write(write_end, b"from a pipe")
    os.close(write_end)
    process = start(["cat"], stdin=read_end)
    os.close(read_end)
    process.wait(10)
    assert process.output() == "from a pipe"


def test_a_process_gets_directory_environment_and_limits(tmp_path: Path) -> None:
    process = start(
        ["/bin/sh", "-c", "pwd; echo $A-$B; ulimit -Sn; ulimit -Hn"], cwd=tmp_path, env={"A": "é"}, rlimits={"RLIMIT_NOFILE": (64, 128)}
    )
    process.wait(10)
    assert process.output() == f"{tmp_path}\né-\n64\n128\n"


def test_a_process_inherits_no_descriptor_and_no_ignored_signal() -> None:
    inside = "import os; print(os.listdir('/proc/self/fd'))"
    process = start([sys.executable, "-I", "-S", "-c", inside])
    process.wait(10)
    assert process.output().splitlines()[0] == "['0', '1', '2', '3']"  # 3 is the one that lists
    process = start(["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"])
    process.wait(10)
    glibc_s_own = 1 << 31 | 1 << 32  # signals 32 and 33: no program can set them, and whatever they were is inherited
    masks = [int(mask, 16) & ~glibc_s_own for mask in re.findall(r"Sig\w+:\t(\w+)$", process.output(), re.MULTILINE)]
    assert masks == [0, 0]


def test_a_script_longer_than_a_message_arrives_whole() -> None:
    process = start(["sh", "-c", f": {'x' * 100_000}; echo end", "sh", "y" * 100_000])
    assert process.wait(10) == 0
    assert process.output() == "end\n"


def test_a_terminal_is_a_controlling_terminal() -> None:
    process = start(["bash", "--norc", "-c", "tty; read line; echo got $line; exit 5"], tty=True)
    assert process.master is not None
    os.write(process.master, b"word\n")
    seen = b""
    while b"got word" not in seen:
        assert select.select([process.master], [], [], 10)[0]
        seen += os.read(process.master, 1000)
    assert b"/dev/pts/" in seen
    assert process.wait(10) == 5
    other = start(["cat"], tty=True)
    assert other.master is not None
    os.write(other.master, b"\x03")  # Ctrl-C, made a signal by the terminal
    assert other.wait(10) == -signal.SIGINT


# --- what cannot be executed, and why ---


def test_a_missing_program_is_named_with_the_path_that_was_searched() -> None:
    with pytest.raises(SyscallError, match=r"execve.*ENOENT.*there is no nosuchprogram in /bin:/usr/bin") as caught:
        start(["nosuchprogram"], env={"PATH": "/bin:/usr/bin"})
    assert caught.value.errno == 2
    with pytest.raises(SyscallError, match="there is no file /no/such/file"):
        start(["/no/such/file"])


def test_a_missing_script_interpreter_is_told_from_a_missing_file(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter -x\necho\n")
    script.chmod(0o755)
    with pytest.raises(SyscallError, match=r"ENOENT.*script is there, its script interpreter /no/such/interpreter is not"):
        start([script])


def test_a_missing_loader_is_told_from_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy("/bin/true", tmp_path / "bin/true")  # dynamically linked; its loader is not in this root
    with pytest.raises(SyscallError, match=r"ENOENT.*/bin/true is there, its loader /lib\S+ is not"):
        start(["/bin/true"], new=["mount"], root=tmp_path)


def test_a_file_that_may_not_be_executed_says_why(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for mode, errno, cause in ((0o644, 13, "no execute permission"), (0o755, 8, "neither a program nor a script")):
        plain.chmod(mode)
        with pytest.raises(SyscallError, match=cause) as caught:
            start([plain])
        assert caught.value.errno == errno
    with pytest.raises(SyscallError, match="is a directory"):
        start([tmp_path])


def test_a_failed_start_leaves_no_process_and_no_tracker() -> None:
    with pytest.raises(SyscallError):
        start(["/no/such/file"], name="failed")
    assert not list(Path(cgroups.home("")).glob("processes/failed*"))


# --- namespaces, root, host name ---


@pytest.mark.parametrize("kind", list(namespaces.KINDS))
def test_each_kind_of_namespace_can_be_new_and_only_that_one_is(kind: str) -> None:
    process = start(SLEEP, new=[kind])
    mine = process.namespaces()
    assert {name for name in MACHINE if mine[name] != MACHINE[name]} == {kind}


def test_all_kinds_can_be_new_at_once() -> None:
    process = start(SLEEP, new=list(namespaces.KINDS), uid_map=[(0, 0, 1)])
    assert all(process.namespaces()[kind] != MACHINE[kind] for kind in MACHINE)


@pytest.mark.parametrize("kind", ["uts", "net", "ipc", "mount", "cgroup", "time", "pid", "user"])
def test_each_kind_of_namespace_of_another_process_can_be_entered(kind: str) -> None:
    first = start(SLEEP, name="first", new=[kind], uid_map=[(0, 1000, 10)] if kind == "user" else ())
    second = start(SLEEP, name="second", enter={kind: first})
    assert second.namespaces()[kind] == first.namespaces()[kind]
    assert {name for name in MACHINE if second.namespaces()[name] != MACHINE[name]} == {kind}


def test_a_named_network_namespace_is_entered_by_its_file() -> None:
    subprocess.run(["ip", "netns", "add", "processes-test"], check=True)
    try:
        process = start(["ip", "-o", "link"], enter={"net": Path("/run/netns/processes-test")})
        process.wait(10)
        assert [line.split(":")[1].strip() for line in process.output().splitlines()] == ["lo"]
    finally:
        subprocess.run(["ip", "netns", "delete", "processes-test"], check=True)


def test_what_is_made_in_an_entered_user_namespace_belongs_to_it() -> None:
    first = start(SLEEP, new=["user"], uid_map=[(0, 0, 1)])
    second = start(SLEEP, enter={"user": first}, new=["uts"])
    owners = {state.inode: state.owner for state in namespaces.inventory()}
    assert owners[second.namespaces()["uts"]] == first.namespaces()["user"]


def test_a_host_name_is_set_inside_only() -> None:
    before = os.uname().nodename
    process = start(["sh", "-c", "hostname; sleep 1000"], new=["uts"], hostname="inside")
    assert process.wait_output("inside")
    assert os.uname().nodename == before
    with pytest.raises(LabError, match='add "uts" to new'):
        start(SLEEP, hostname="outside")


def test_a_pid_namespace_numbers_from_1_and_shows_the_machine_until_proc_is_fresh() -> None:
    script = ["sh", "-c", "echo pid $$; echo seen /proc/[0-9]*; exec sleep 1000"]
    stale = start(script, new=["pid"])
    stale.wait_output("seen")
    assert "pid 1\n" in stale.output()
    assert f"/proc/{os.getpid()}" in stale.output()
    fresh = start(script, new=["pid", "mount"], mount_proc=True)
    fresh.wait_output("seen")
    assert fresh.output() == "pid 1\nseen /proc/1\n"
    assert fresh.state().pid_inside == 1
    assert fresh.pid != 1


def test_root_inside_a_user_namespace_is_the_given_user_outside() -> None:
    script = ["sh", "-c", "id -u; id -g; exec sleep 1000"]
    process = start(script, new=["user"], uid_map=[(0, 1000, 1), (1, 100_000, 99)], gid_map=[(0, 2000, 1)])
    process.wait_output("^0\n0$")
    assert status_of(process.pid, "Uid").split() == ["1000"] * 4
    assert status_of(process.pid, "Gid").split() == ["2000"] * 4
    assert namespaces.uid_map(process.pid) == ((0, 1000, 1), (1, 100_000, 99))
    assert namespaces.gid_map(process.pid) == ((0, 2000, 1),)


def test_a_user_namespace_without_a_map_knows_nobody() -> None:
    process = start(["id", "-u"], new=["user"])
    process.wait(10)
    assert process.output().strip() == Path("/proc/sys/kernel/overflowuid").read_text().strip()


def test_a_map_that_the_kernel_refuses_is_an_error_with_the_file() -> None:
    with pytest.raises(SyscallError, match=r"write\(/proc/\d+/uid_map, 0 0 0\): EINVAL"):
        start(SLEEP, new=["user"], uid_map=[(0, 0, 0)], gid_map=[(0, 0, 1)])


def small_tree(root: Path) -> Path:
    """Make a root with busybox's shell, or with bash and its libraries."""
    for folder in ("bin", "proc", "data"):
        (root / folder).mkdir(parents=True)
    needed = re.findall(r"(/\S+)", subprocess.run(["ldd", "/bin/sh", "/bin/ls"], check=True, capture_output=True, text=True).stdout)
    for file in {"/bin/sh", "/bin/ls", *(word for word in needed if not word.endswith(":"))}:
        target = root / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return root


def test_pivot_root_gives_a_tree_of_its_own_and_hides_the_machine(tmp_path: Path) -> None:
    root, shown = small_tree(tmp_path / "root"), tmp_path / "shown"
    shown.mkdir()
    (shown / "file").write_text("of the host")
    process = start(
        ["/bin/sh", "-c", "echo $$; pwd; ls /; ls /data /proc/1/root; while read line; do echo $line; done < /proc/self/mountinfo"],
        new=["mount", "pid"],
        root=root,
        mount_proc=True,
        binds=[(shown, "/data")],
    )
    assert process.wait(10) == 0, process.output()
    assert process.output().startswith("1\n/\n")
    assert "file" in process.output()
    mounts = [line.split()[4] for line in process.output().splitlines() if " - " in line]
    assert sorted(mounts) == ["/", "/data", "/proc"]
    assert str(root) not in Path("/proc/self/mountinfo").read_text()


def test_a_new_time_namespace_moves_the_boot_clock() -> None:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    process = start(["cat", "/proc/uptime"], new=["time"], boottime=1_000_000)
    process.wait(10)
    assert 1_000_000 <= float(process.output().split()[0]) - uptime < 1_000_100


def test_a_new_mount_namespace_keeps_its_mounts_to_itself(tmp_path: Path) -> None:
    process = start(["sh", "-c", f"mount -t tmpfs none {tmp_path} && touch {tmp_path}/inside && echo done; sleep 1000"], new=["mount"])
    process.wait_output("done")
    assert not list(tmp_path.iterdir())


def test_a_cgroup_namespace_has_its_own_cgroup_as_root() -> None:
    process = start(["cat", "/proc/self/cgroup"], new=["cgroup"])
    process.wait(10)
    assert "0::/\n" in process.output()


# --- cgroups ---


def freezer(name: str) -> Path:
    return Path(cgroups.home("freezer")) / name


def test_a_process_is_in_its_cgroups_before_it_runs() -> None:
    group = freezer("early")
    group.mkdir()
    process = start(["cat", "/proc/self/cgroup"], cgroups=[group])
    process.wait(10)
    assert "/early\n" in process.output()
    group.rmdir()


def test_a_process_started_in_a_frozen_cgroup_waits_there_and_can_be_ended() -> None:
    group = cgroups.Cgroup.create("cold", controllers=("freezer",))
    group.freeze()
    process = start(["echo", "thawed"], name="cold", cgroups=[group])
    assert process.alive
    assert not process.started
    assert process.output() == ""
    group.thaw()
    assert process.wait(10) == 0
    assert process.output() == "thawed\n"
    group.freeze()
    other = start(SLEEP, name="cold", cgroups=[group])
    assert other.kill() == -signal.SIGKILL
    group.remove()


def test_a_frozen_process_can_be_ended_and_its_cgroup_stays_frozen() -> None:
    group = cgroups.Cgroup.create("ice", controllers=("freezer",))
    process = start(["sh", "-c", "sleep 1000 & sleep 1000"], cgroups=[group])
    until(lambda: len(group.procs()) == 3)
    group.freeze()
    assert process.kill() == -signal.SIGKILL
    assert not group.procs()
    assert group.frozen
    group.remove()


def test_a_directory_that_is_no_cgroup_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="is not a cgroup"):
        start(SLEEP, cgroups=[tmp_path])


# --- the end of a process and of all it started ---

ESCAPING = "setsid sh -c 'setsid sleep 1001 & setsid sleep 1002 & echo $! up; wait' & sleep 1003"


def family(process: Process) -> set[int]:
    return {int(line) for line in (Path(process.tracker.path) / "cgroup.procs").read_text().split()}


def test_kill_ends_grandchildren_that_left_session_and_parent() -> None:
    process = start(["sh", "-c", f"({ESCAPING}) & sleep 1000"], name="escape")
    process.wait_output("up")
    until(lambda: len(family(process)) >= 6)
    members = family(process)
    assert process.kill() == -signal.SIGKILL
    assert all(gone(pid) for pid in members)
    assert not Path(process.tracker.path).exists()
    assert process.kill() == -signal.SIGKILL  # once more does nothing


def test_kill_ends_descendants_that_moved_to_another_cgroup() -> None:
    other = Path(cgroups.home("")) / "elsewhere"
    other.mkdir()
    process = start(["sh", "-c", f"echo $$ > {other}/cgroup.procs; {ESCAPING}"])
    process.wait_output("up")
    members = {int(line) for line in (other / "cgroup.procs").read_text().split()}
    assert len(members) >= 4
    process.kill()
    assert all(gone(pid) for pid in members)
    other.rmdir()


def test_an_orphan_that_ends_leaves_no_zombie_behind() -> None:
    process = start(["sh", "-c", "sleep 1000 & echo $!"])
    process.wait(10)
    orphan = int(process.output())
    launcher = launching.running()
    assert launcher is not None
    assert status_of(orphan, "PPid") == str(launcher.pid)
    os.kill(orphan, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{orphan}").exists(), seconds=1)


def test_kill_spares_what_stands_beside_and_a_later_process_of_the_same_name() -> None:
    beside = start(SLEEP, name="beside")
    first = start(["true"], name="clock")
    first.wait(10)
    second = start(SLEEP, name="clock")
    first.kill()
    assert beside.alive
    assert second.alive


def test_a_dead_launcher_takes_its_children_along_and_the_next_start_works() -> None:
    process = start(["sh", "-c", f"({ESCAPING}) & sleep 1000"])
    process.wait_output("up")
    members = family(process)
    launcher = launching.running()
    assert launcher is not None
    os.kill(launcher.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert start(["true"]).wait(10) == 0
    until(lambda: all(gone(pid) for pid in members))


NOTEBOOK = """
import os, sys
from labkit import ledger
ledger.own("processes-test")
from labkit.kernel import processes
from labkit.kernel.processes import launching
process = processes.start(["sh", "-c", {script!r}])
process.wait_output("up")
print(launching.running().pid, *open(process.tracker.path + "/cgroup.procs").read().split(), flush=True)
os.kill(os.getpid(), 9)
"""


def test_when_the_notebook_is_killed_all_that_it_started_ends() -> None:
    done = subprocess.run([sys.executable, "-c", NOTEBOOK.format(script=f"({ESCAPING}) & sleep 1000")], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) >= 6
    until(lambda: all(gone(pid) for pid in pids))


def test_a_hundred_quick_starts_leave_no_descriptor_and_no_tracker() -> None:
    start(["true"]).wait(10)
    launcher = launching.running()
    assert launcher is not None
    until(lambda: status_of(launcher.pid, "State").startswith("S"))  # it has put away what the first start needed
    places = [Path("/proc/self/fd"), Path(f"/proc/{launcher.pid}/fd")]
    before = [len(list(place.iterdir())) for place in places]
    for _ in range(100):
        start(["true"], new=["uts"]).wait(10)
    until(lambda: [len(list(place.iterdir())) for place in places] == before)
    assert not list(Path(cgroups.home("")).glob("processes/*/"))


def test_many_threads_start_at_once() -> None:
    outputs: dict[int, str] = {}

    def one(number: int) -> None:
        process = start(["echo", str(number)], name="same", new=["uts"])
        process.wait(20)
        outputs[number] = process.output()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: f"{number}\n" for number in range(16)}


IN_KERNEL = """
import asyncio
assert asyncio.get_running_loop().is_running()
from labkit import ledger
ledger.own("processes-test")
from labkit.kernel import processes
from labkit.kernel.processes import launching
done = processes.run("echo $$; hostname inside; hostname", new=["pid", "uts", "net", "user"], uid_map=[(0, 1000, 1)])
launching.close()
assert (done.status, done.stdout) == (0, "1\\ninside\\n"), done
"""
JUPYTER = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
reply = client.execute_interactive({code!r}, timeout=60)
client.stop_channels()
manager.shutdown_kernel(now=True)
assert reply["content"]["status"] == "ok", reply["content"]
"""


def test_it_works_in_a_notebook_kernel_whose_event_loop_runs() -> None:
    done = subprocess.run([sys.executable, "-c", JUPYTER.format(code=IN_KERNEL)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- run ---


def test_run_passes_output_on_while_it_comes() -> None:
    pieces: list[tuple[float, str]] = []
    script = "echo one; sleep 0.5; echo two >&2; exit 6"
    done = processes.run(script, on_output=lambda text: pieces.append((time.monotonic(), text)))
    assert (done.status, done.stdout, done.stderr) == (6, "one\ntwo\n", "")
    assert [text for _, text in pieces] == ["one\n", "two\n"]
    assert pieces[1][0] - pieces[0][0] > 0.3


def test_run_keeps_standard_error_apart_where_asked() -> None:
    done = processes.run("echo one; echo two >&2", on_error=lambda text: None)
    assert (done.stdout, done.stderr) == ("one\n", "two\n")


def test_run_raises_the_status_where_asked_and_after_its_time() -> None:
    with pytest.raises(CommandError, match="exit status 6"):
        processes.run("exit 6", check=True)
    with pytest.raises(CommandError, match=r"still ran after 0\.3 s"):
        processes.run("sleep 1000", timeout=0.3)


def test_run_ends_with_the_script_and_leaves_what_is_in_the_background() -> None:
    begin = time.monotonic()
    done = processes.run("(while sleep 0.05; do echo tick; done) & echo $!")
    assert time.monotonic() - begin < 5
    pid = int(done.stdout.split()[0])
    for _ in range(5):
        select.select([], [], [], 0.1)
        assert not gone(pid), "it was ended by SIGPIPE"


def test_an_interrupted_run_ends_with_all_children() -> None:
    seen: list[str] = []

    def interrupt(text: str) -> None:
        seen.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        processes.run("setsid sleep 1000 & echo $!; sleep 1000", on_output=interrupt)
    assert gone(int(seen[0]))


# --- trace ---


def test_typed_lines_give_the_same_namespaces(tmp_path: Path) -> None:
    with trace.collecting() as traced:
        first = start(
            ["sh", "-c", "hostname; exec sleep 1000"],
            name="first",
            new=["uts", "pid", "mount"],
            mount_proc=True,
            hostname="inside",
            cwd=tmp_path,
            stdout=tmp_path / "first.log",
        )
        first.wait_output("inside")
        start(SLEEP, name="second", enter={"uts": first}, cwd=tmp_path)
        mapped = start(SLEEP, name="mapped", new=["user"], uid_map=[(0, 1000, 5)], gid_map=[(0, 2000, 5)], cwd=tmp_path)
        assert status_of(mapped.pid, "Uid").split() == ["1000"] * 4
    assert "> first.log 2>&1 & first=$!" in traced.shell()
    assert "clone3(CLONE_NEWNS|CLONE_NEWUTS|CLONE_NEWPID|CLONE_INTO_CGROUP)" in traced.operations[0].calls
    lines = f"""cd {tmp_path}
    {traced.shell()}
    until grep -q inside first.log && [ $(readlink /proc/$second/ns/uts) = $(readlink /proc/$first/ns/uts) ] &&
          grep -q 'Uid:.1000' /proc/$mapped/status; do sleep 0.05; done
    readlink /proc/$first/ns/*; grep NSpid /proc/$first/status; cat /proc/$mapped/uid_map /proc/$mapped/gid_map; hostname
    kill -KILL $first $second $mapped"""
    typed = subprocess.run(["timeout", "20", "bash", "-c", lines], capture_output=True, text=True)
    assert typed.returncode == 0, typed
    links = dict(re.findall(r"^(\w+):\[(\d+)\]$", typed.stdout, re.MULTILINE))
    new = {kind for kind, row in namespaces.KINDS.items() if links[row.file] != str(MACHINE[kind])}
    assert new == {"uts", "pid", "mount"}
    assert re.search(r"NSpid:\t\d+\t1$", typed.stdout, re.MULTILINE)
    assert re.findall(r"^\s+0\s+(\d+)\s+5$", typed.stdout, re.MULTILINE) == ["1000", "2000"]
    assert os.uname().nodename in typed.stdout


def test_a_start_in_a_cgroup_is_typed_so_that_the_pid_kept_is_that_of_the_program(tmp_path: Path) -> None:
    group = cgroups.Cgroup.create("hogs", controllers=("pids",))
    with trace.collecting() as traced:
        start(["bash", "-c", "echo up; exec sleep 1000"], name="hog", cgroups=[group], cwd=tmp_path, stdout=tmp_path / "hog.log")
    hogs = group.directory("pids") / "cgroup.procs"
    lines = f"""cd {tmp_path}; {traced.shell()}
    until grep -q up hog.log && [ "$(cat /proc/$hog/comm)" = sleep ]; do sleep 0.05; done
    grep -x $hog {hogs}; kill -KILL $hog"""
    group.kill()
    (tmp_path / "hog.log").unlink()
    typed = subprocess.run(["timeout", "20", "bash", "-c", lines], capture_output=True, text=True)
    assert typed.returncode == 0, typed


def test_ending_a_process_is_typed_with_its_name() -> None:
    with trace.collecting() as traced:
        clock, nameless = start(SLEEP, name="my-clock"), start(SLEEP)
        clock.signal(signal.SIGSTOP)
        for process in (clock, nameless, clock):
            process.kill()
    lines = [operation.shell for operation in traced.operations]
    assert lines[2:] == ["kill -STOP $my_clock", "kill -KILL $my_clock", f"kill -KILL {nameless.pid}"]
