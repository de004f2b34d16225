"""The record of who starts whom has what happened, all of it, in order, and says what it could not have."""

import os
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labkit.errors import UnsupportedError
from labkit.kernel.processes import connector, events
from labkit.kernel.processes.events import Event, Record, execs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def linger() -> str:
    """Return a command that ends after a moment, so that it can be read who it was."""
    return "sleep 0.05"


def ran(script: str) -> Record:
    with execs() as record:
        subprocess.run(["bash", "-c", script], check=False)
    return record


def test_the_forks_execs_and_exits_of_a_script_are_recorded_exactly_and_in_order(linger: str):
    record = ran(f"{linger}; (exec {linger}); bash -c 'exit 3'; bash -c 'kill -KILL $$'; true")
    bash, *_ = [event.pid for event in record.events if event.what == "exec"]
    one, two, three, four = [event.child for event in record.events if event.what == "fork" and event.pid == bash]
    assert [(event.what, event.pid, event.child, event.status) for event in record.events] == [
        ("fork", os.getpid(), bash, 0),
        ("exec", bash, 0, 0),
        *[step for pid, status in ((one, 0), (two, 0), (three, 3), (four, -9)) for step in born_and_gone(bash, pid, status)],
        ("exit", bash, 0, 0),
    ]
    assert [event.argv for event in record.events if event.what == "exec"][1:3] == [("sleep", "0.05")] * 2
    assert [event.exe for event in record.events if event.what == "exec"][1] == os.path.realpath("/bin/sleep")
    assert [event.at for event in record.events] == sorted(event.at for event in record.events)
    assert (record.lost, record.events[0].at >= 0) == (0, True)


def born_and_gone(parent: int, pid: int, status: int) -> list[tuple[str, int, int, int]]:
    return [("fork", parent, pid, 0), ("exec", pid, 0, 0), ("exit", pid, 0, status)]


CROWDED = """
import os, resource, subprocess
from labkit.kernel.processes.events import execs
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
many = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
with execs() as record:
    subprocess.run(["true"])
print(*[event.what for event in record.events])
"""


def test_it_is_recorded_also_where_a_thousand_files_are_open():
    said = subprocess.run([sys.executable, "-c", CROWDED], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert said.split() == ["fork", "exec", "exit"]


def test_a_name_that_a_process_gives_itself_is_recorded():
    named = [event.comm for event in ran("printf renamed > /proc/$$/comm; true").events if event.what == "comm"]
    assert named == ["renamed"]


def test_threads_are_no_processes():
    script = "import threading; [t.start() for t in [threading.Thread(target=int) for _ in range(5)]]"
    with execs() as record:
        subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True)
    assert [event.what for event in record.events] == ["fork", "exec", "exit"]


def test_only_the_processes_asked_for_and_what_they_start_are_in_it():
    other = subprocess.Popen(["bash", "-c", "echo; read go; sleep 0.05; true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    try:
        other.stdout.readline()  # its own exec is over
        with execs([other.pid]) as record:
            subprocess.run(["true"], check=True)
            other.communicate(b"go\n")
    finally:
        other.kill()
    assert record.roots == {other.pid: "bash"}
    assert [(event.what, event.pid == other.pid) for event in record.events] == [
        ("fork", True),
        ("exec", False),
        ("exit", False),
        ("exit", True),
    ]


def test_two_thousand_short_lived_processes_are_all_there():
    record = ran("for i in {1..2000}; do (:) ; done")
    assert sum(event.what == "fork" for event in record.events) == 2001
    assert record.lost == 0


def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the record be taken from the kernel only when all is over."""
    run = events._Listener._run

    def run_late(listener: events._Listener) -> None:
        select.select([listener._wake], [], [])
        run(listener)

    monkeypatch.setattr(events._Listener, "_run", run_late)


def test_what_the_kernel_had_to_drop_is_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connector, "QUEUE", 16384)
    waits(monkeypatch)
    record = ran("for i in {1..300}; do (:) ; done")
    assert record.lost >= 1
    assert sum(event.what == "fork" for event in record.events) < 301


def test_a_program_that_ended_before_it_could_be_read_is_said_to_have(monkeypatch: pytest.MonkeyPatch):
    waits(monkeypatch)
    record = ran("true")
    assert (record.unread, [event.argv for event in record.events if event.what == "exec"]) == (1, [()])


def test_a_block_that_fails_ends_the_record_and_its_threads():
    before = threading.active_count(), os.listdir("/proc/self/fd")
    with pytest.raises(subprocess.CalledProcessError), execs() as record:
        subprocess.run(["false"], check=True)
    assert [(event.what, event.status) for event in record.events] == [("fork", 0), ("exec", 0), ("exit", 1)]
    assert (threading.active_count(), os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pid", "--fork", "--mount-proc"], "found no answer of the kernel; cause: this pid namespace is not the first"),
        (["--user", "--map-root-user"], "found no answer of the kernel; cause: this user namespace is not the first"),
        (["--net"], "found ECONNREFUSED: this network namespace has none"),
    ],
)
def test_in_another_namespace_it_is_refused_with_the_cause_that_was_measured(options: list[str], said: str):
    code = "from labkit.kernel.processes.events import execs\nwith execs(): pass"
    done = subprocess.run(["unshare", *options, sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert f"{UnsupportedError.__name__}: needs the process connector" in done.stderr
    assert said in done.stderr


def test_a_number_that_is_free_again_belongs_to_nobody():
    given = [Event("fork", 0, 1, 2), Event("exit", 1, 2), Event("exec", 2, 2), Event("fork", 3, 2, 3)]
    assert list(events._of_family(given, {1})) == given[:2]
