"""The command `labkit`: an error is one line on standard error and exit status 2."""

import json
import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from labkit.course.checkpoints import as_checkpoints
from labkit.course.course_map import CHAPTERS, LABS, module, written

ROOT = Path(__file__).resolve().parents[2]
READS = "+dac_read_search"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={READS}", f"--ambient-caps={READS}")
"""Another user, who may read a checkout below /root all the same."""
COMMANDS = tuple(
    "labs doctor start url clean up down status render validate check hint solution progress "
    "parts xray compare cri crio execs images version".split()
)


def labkit(*argv: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*before, ROOT / ".venv/bin/labkit", *argv], cwd="/", capture_output=True, text=True, timeout=60)


def test_a_crio_conf_is_written_and_judged(tmp_path: Path) -> None:
    file = tmp_path / "crio.conf"
    assert labkit("crio", "write", str(file)).returncode == 0
    done = labkit("crio", "judge", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    file.write_text(file.read_text().replace("pids_limit", "pid_limit"))
    done = labkit("crio", "judge", str(file))
    assert (done.returncode, done.stdout) == (1, "[crio.runtime] has no key 'pid_limit'; remedy: 'pids_limit'?\n")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["lab"], "there is no command 'lab'; did you mean labs?"),
        (["teleport"], "there is no command 'teleport'"),
        (["doctor", "--jsno"], "No such option"),
        (["doctor", "2.9"], "there is no lab '2.9'; remedy: open one of 2.1, 2.2, 2.3"),
        (["clean", "21"], "there is no lab '21'"),
        (["render", "9.9"], "there is no lab '9.9'; remedy: open one of 9.1, 9.2, 9.3"),
        (["check", "2.1"], "Missing argument 'CHECKPOINT'"),
        (["check", "2.1", "melted"], "this lab has no checkpoint 'melted'; remedy: it has"),
        (["hint", "2.2", "melted"], "this lab has no checkpoint 'melted'"),
        (["start", "--port", "0"], "Invalid value for '--port'"),
        (["parts", "nobody-is-called-so"], "no process and no container here is called 'nobody-is-called-so'"),
        (["parts", "4194305"], "there is no process 4194305"),
        (["labs", "2.1"], "unexpected extra argument"),
        (["cri", "Versoin"], "the labs know no call 'Versoin' of the CRI; remedy: Version?"),
        (["cri", "Version", "{"], "Version: the request is not JSON"),
        (["cri", "Version", "[]"], "Version: the request must be an object of JSON"),
        (["cri", "--socket", "/run/nobody.sock", "Version"], "/run/nobody.sock: Version: UNAVAILABLE; cause: there is no such socket"),
        (["crio", "judge", "/nosuch.conf"], "/nosuch.conf: No such file or directory"),
        (["crio", "write", "/nosuch/crio.conf"], "/nosuch/mounts.conf cannot be written: No such file or directory"),
        (["compare", "dockr"], "there is no runtime 'dockr'; remedy: one of chroot"),
        (["execs"], "Missing argument 'COMMAND'"),
        (["execs", "nosuch", "--help"], "needs the command nosuch; found no such command in PATH"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_one_line_and_exit_status_2(argv: list[str], said: str) -> None:
    done = labkit(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("labkit: ")
    assert said in done.stderr


ROOTED = ["start", "clean", "render", "validate 2.1", "check 2.1 frozen", "up docker", "down", "status"]


@pytest.mark.parametrize("command", [line.split() for line in ROOTED], ids=ROOTED)
def test_what_needs_root_says_so(command: list[str]) -> None:
    done = labkit(*command, before=NOBODY)
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs root; remedy: sudo " in done.stderr
    assert done.stderr.rstrip().endswith("bin/labkit " + " ".join(command))
    assert len(done.stderr.splitlines()) == 1


def test_labs_shows_the_whole_course_in_80_columns() -> None:
    lines = labkit("labs").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    shown = [found[1] for line in lines if (found := re.match(r"  (\d\.\d)  ", line))]
    assert shown == [lab.id for lab in LABS]
    waiting = [line.split()[0] for line in lines if line.endswith("not there yet")]
    assert waiting == [lab.id for lab in LABS if lab not in written()]
    assert [line for line in lines if re.match(r"\d ", line)] == [f"{number} {title}" for number, title in CHAPTERS.items()]


def test_labs_shows_what_was_passed_what_comes_next_and_the_doctors_word(tmp_path: Path) -> None:
    first, second, *_ = written()
    tasks = {lab: as_checkpoints(import_module(module(lab.id))) for lab in (first, second)}
    record = tmp_path / f"{first.id}.jsonl"
    record.write_text("".join(passing(one.id) for one in tasks[first]))
    (tmp_path / f"{second.id}.jsonl").write_text(passing(tasks[second][0].id))
    said = labkit("labs", before=("env", f"LABKIT_PROGRESS={tmp_path}")).stdout
    every, one = len(tasks[first]), len(tasks[second])
    assert re.search(rf"^  {first.id} .*✔ {every} of {every}$", said, re.MULTILINE)
    assert re.search(rf"^  {second.id} .*▸ 1 of {one}$", said, re.MULTILINE)
    assert f"go on with lab {second.id}: {second.title}" in said
    assert " ".join(f"its next task: {tasks[second][1].task}".split()[:8]) in " ".join(said.split())
    assert re.search(r"(green|amber|red) +(every lab can run on this machine|on this machine .* cannot run)", said)


def passing(checkpoint: str) -> str:
    return json.dumps({"time": 0, "event": "checked", "checkpoint": checkpoint, "passed": True}) + "\n"


def test_the_course_map_knows_every_title_once() -> None:
    assert len({lab.title for lab in LABS}) == len(LABS)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns(command: str) -> None:
    done = labkit(*filter(None, [command]), "--help")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "..." not in re.sub(r"\[\w+\]\.\.\.", "", done.stdout), "a summary that does not fit"


def test_help_loads_click_and_none_of_the_rooms() -> None:
    code = "import sys, labkit.cli; print(*sys.modules)"
    loaded = subprocess.run([ROOT / ".venv/bin/python", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    rooms = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("labkit.")}
    assert rooms == {"labkit.cli", "labkit.errors"}
    assert not {"IPython", "asyncio", "nbformat", "psutil", "pyroute2", "rich"} & set(loaded)


def test_who_starts_whom_is_told_with_what_the_command_wrote_and_its_status() -> None:
    done = labkit("execs", "sh", "-c", "sleep 0.05; echo done; exit 3")
    assert (done.returncode, done.stdout.splitlines()[0]) == (3, "done")
    assert re.search(r"sh \(\d+\) +starts pid \d+: sleep 0.05; it ends, status 0\n", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(f"{ROOT}/.venv/bin/labkit labs | head -n 1", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_clean_with_nothing_to_do_says_so_and_changes_nothing(tmp_path: Path) -> None:
    done = labkit("clean", before=("env", f"LABKIT_STATE={tmp_path}"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing of the labs is left\n", "")


def test_a_ledger_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").mkdir()
    done = labkit("clean", before=("env", f"LABKIT_STATE={tmp_path}"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "ledger.jsonl" in done.stderr
