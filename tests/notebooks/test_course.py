"""The course's machinery in a real kernel, on throw-away cells."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from sessions import HERE, OPEN, Session

from labkit import ledger
from labkit.course.render import render, source_sha256
from labkit.course.validate import validate
from labkit.errors import LabError
from labkit.kernel import cgroups


def tracked() -> list[Path]:
    """Return the processes that run in some lab's cgroups."""
    unified = cgroups.hierarchies().unified
    files = unified.glob("lab*/**/cgroup.procs") if unified else []
    return [Path("/proc") / pid for file in files for pid in file.read_text().split()]


# opening


def test_opening_shows_the_card_and_nothing_else(kernel: Session):
    ran = kernel.ok(OPEN)
    assert "A lab for tests" in ran.text
    assert "Make a cgroup called box." in ran.text
    assert not any("what changed" in shown.get("text/plain", "").lower() for shown in ran.displays)


def test_an_unknown_lab_is_refused_in_one_line_naming_those_near(kernel: Session):
    ran = kernel.run('from labkit import open_lab\nopen_lab("2.9")')
    assert ran.error.startswith("LabError: there is no lab '2.9'")
    assert "2.1, 2.2, 2.3" in ran.error
    assert "\n" not in ran.error


def test_without_root_a_lab_is_refused_in_one_line(tmp_path: Path):
    code = (
        f"import os, sys; sys.path.insert(0, {str(HERE)!r}); import trial_lab, labkit.course.lab as lab; "
        "os.seteuid(65534); lab.open_lab('9.2')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "LabError: a lab changes the kernel's state and needs root" in done.stderr.splitlines()[-1]
    assert ledger.live() == []


def test_a_name_that_the_lab_will_use_and_did_not_make_is_refused_not_taken(kernel: Session):
    subprocess.run(["ip", "netns", "add", "trial1"], check=True)
    try:
        ran = kernel.run(OPEN)
        assert "network namespace trial1 is there and is not this lab's" in ran.error
        kernel.run("lab.close()")
        assert Path("/run/netns/trial1").exists()
        assert ledger.live() == []
    finally:
        subprocess.run(["ip", "netns", "delete", "trial1"], check=True)


def test_opening_again_is_a_reset(lab: Session):
    lab.ok('group = lab.cgroup("box")\nshell = lab.spawn("exec sleep 1000", name="sleeper", cgroup=group)')
    directory = lab.ok("print(*group.directories)").stdout.split()[0]
    ran = lab.ok('lab = open_lab("9.2")')
    assert not Path(directory).exists()
    assert tracked() == []
    assert len([shown for shown in ran.displays if "A lab for tests" in shown["text/plain"]]) == 1


def test_it_works_in_a_plain_python_too():
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import trial_lab; from labkit import open_lab\n"
        "lab = open_lab('9.2'); lab.check('made'); lab.cgroup('box'); lab.check('made'); lab.run('echo from bash'); lab.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cgroup box: not there" in done.stdout
    assert "cgroup box: there" in done.stdout
    assert "from bash" in done.stdout


# reports under cells


def test_a_cell_shows_what_it_changed_and_how_that_is_typed(lab: Session):
    ran = lab.ok('group = lab.cgroup("box")')
    assert len(ran.displays) == 1
    text = ran.displays[0]["text/plain"]
    assert "lab-9.2/box" in text
    assert "mkdir" in text
    assert "text/html" in ran.displays[0]


def test_a_cell_that_changes_nothing_shows_nothing(lab: Session):
    assert lab.ok("x = 1 + 1").outputs == []
    lab.ok('lab.cgroup("box")')
    assert "box" not in lab.ok('group = lab.cgroup("box"); x = 2').text, "found again, nothing is made"


def test_a_cell_that_fails_still_shows_what_it_changed(lab: Session):
    ran = lab.run('lab.cgroup("box")\n1 / 0')
    assert "ZeroDivisionError" in ran.error
    assert any("box" in shown["text/plain"] for shown in ran.displays)


def test_opening_twice_does_not_double_the_reports(lab: Session):
    lab.ok('lab = open_lab("9.2")')
    lab.ok('lab = open_lab("9.2")')
    assert len(lab.ok('group = lab.cgroup("box")').displays) == 1


def test_the_trace_file_keeps_each_cell(lab: Session):
    lab.ok('group = lab.cgroup("box")')
    lab.ok("%%lab\necho FROZEN > $FREEZER/box/freezer.state")
    path = ledger.state() / "labs" / "9.2.trace.jsonl"
    cells = [json.loads(line) for line in path.read_text().splitlines()]
    assert [cell["cell"] for cell in cells] == [1, 2]
    assert "mkdir" in cells[0]["shell"]
    assert any(change[0] == "appeared" and "box" in change[2] for change in cells[0]["changes"])
    assert "echo FROZEN" in cells[1]["shell"]


def test_an_object_as_last_expression_is_drawn(lab: Session):
    lab.ok('group = lab.cgroup("box")')
    shown = lab.ok("group").displays
    assert len(shown) == 1
    assert "box" in shown[0]["text/plain"]
    assert "<" in shown[0]["text/html"]


# shell cells


def test_a_shell_cell_streams_while_it_runs(lab: Session):
    sent = lab.begin("%%lab\necho first\nread -t 30 line < <(sleep 30) || true\necho last")
    while (message := lab.message())["msg_type"] != "stream":
        pass
    assert "first" in message["content"]["text"]
    assert "last" not in message["content"]["text"]
    lab.interrupt()
    assert "KeyboardInterrupt" in lab.finish(sent).error
    assert tracked() == [], "an interruption leaves no process"


def test_a_shell_cell_runs_in_the_labs_directory_with_its_variables(lab: Session):
    lab.ok('lab.spawn("exec sleep 1000", name="sleeper")')
    ran = lab.ok("%%lab\ntest $PWD = $LAB && test -d $FREEZER && cat /proc/$sleeper/comm")
    assert ran.stdout == "sleep\n"


def test_a_shell_cell_ends_at_the_first_line_that_fails(lab: Session):
    ran = lab.run("%%lab\nfalse\necho never")
    assert "CommandError" in ran.error
    assert "never" not in ran.stdout


def test_a_failure_can_be_expected(lab: Session):
    ran = lab.ok("%%lab --fails 'No such file'\ncat /nowhere")
    assert "as expected: exit status 1" in ran.stdout
    assert "CheckFailed" in lab.run("%%lab --fails 'Permission denied'\ncat /nowhere").error
    assert "CheckFailed" in lab.run("%%lab --fails\ntrue").error
    assert "LabError" in lab.run("%%lab --perhaps\ntrue").error


def test_what_a_shell_cell_leaves_in_the_background_is_ended_at_the_reset(lab: Session):
    lab.ok("%%lab\nsleep 1000 &")
    assert tracked()
    lab.ok("lab.reset()")
    assert tracked() == []


def test_what_is_typed_without_labkit_is_removed_too(lab: Session):
    lab.ok("%%lab\nip netns add trial1\nmkdir m && mount -t tmpfs none m\nmkdir $FREEZER/typed")
    lab.ok("lab.close()")
    assert not Path("/run/netns/trial1").exists()
    assert "labs/9.2/m" not in Path("/proc/self/mountinfo").read_text()


def test_a_claim_holds_after_the_name_was_deleted_and_made_again(lab: Session):
    lab.ok('lab.netns("trial1").delete()')
    lab.ok("%%lab\nip netns add trial1")
    lab.kill()
    ledger.undo()
    assert not Path("/run/netns/trial1").exists()


# expect, predictions, checkpoints


def test_an_expected_error_is_one_line(lab: Session):
    ran = lab.ok('lab.cgroup("box").child\nwith expect("LabError"):\n    lab.cgroup("../box")')
    assert len([line for line in ran.stdout.splitlines() if line.startswith("as expected:")]) == 1
    assert "CheckFailed" in lab.run('with expect("EBUSY"):\n    lab.cgroup("../box")').error
    assert "CheckFailed: expected EBUSY; measured no error" in lab.run('with expect("EBUSY"):\n    pass').error


def test_a_prediction_stands_beside_what_was_measured(lab: Session):
    assert "no prediction is open" in lab.run("lab.observe(2)").error
    assert "write your answer" in lab.ok('lab.predict("How many?", ...)').text
    assert "as predicted" in lab.ok('lab.predict("How many?", 2)\nlab.observe(1 + 1)').text
    assert "not as predicted" in lab.ok('lab.predict("How many?", 3)\nlab.observe(1 + 1)').text
    assert "not as predicted" in lab.ok("lab.observe(2)").text, "a cell run again looks at the same prediction"


def test_a_level_checkpoint_holds_only_now(lab: Session):
    assert "mkdir was not called" in lab.ok('lab.check("made")').text
    assert "hint 1 of 2" in lab.ok('lab.hint("made")').text
    assert "hint 2 of 2" in lab.ok('lab.hint("made")').text
    lab.ok('lab.solution("made", run=True)')
    assert lab.ok('print(lab.check("made").passed)').stdout == "True\n"
    lab.ok("%%lab\nrmdir $FREEZER/box")
    assert lab.ok('print(lab.check("made").passed)').stdout == "False\n"


def test_what_a_checkpoint_begins_with_is_made_and_its_lines_are_not_shown(lab: Session):
    ran = lab.ok('lab.given("frozen")')
    assert "Freeze box, once." in ran.text
    assert "mkdir" not in ran.text
    assert lab.ok('print(lab.check("made").passed)').stdout == "True\n"
    assert "this lab has no checkpoint 'none'" in lab.run('lab.given("none")').error


def test_an_edge_checkpoint_is_kept_once_seen_until_the_lab_is_opened_again(lab: Session):
    lab.ok('lab.cgroup("box").freeze()')
    lab.ok('lab.cgroup("box").thaw()')
    assert lab.ok('print(lab.check("frozen").passed)').stdout == "True\n", "nobody asked while it was frozen"
    lab.ok('lab = open_lab("9.2")')
    assert lab.ok('print(lab.check("frozen").passed)').stdout == "False\n"


def test_an_unknown_checkpoint_names_those_there_are(lab: Session):
    assert "it has made, frozen" in lab.run('lab.check("froozen")').error


def test_a_verdict_is_shown_once(lab: Session):
    assert len(lab.ok('lab.check("made")').displays) == 1


def test_progress_survives_the_reset(lab: Session):
    lab.ok('lab.cgroup("box")\nlab.check("made")\nlab.reset()')
    assert "passed" in lab.ok("lab.progress()").text


# terminal, watch, spawn


def test_a_terminal_is_a_real_one_and_is_ended_with_its_block(lab: Session):
    ran = lab.ok('with lab.terminal("bash") as t:\n    t.run("tty")\n    t.run("cd /proc; pwd")')
    assert "/dev/pts/" in ran.stdout
    assert "/proc\n" in ran.stdout
    assert tracked() == []


def test_a_terminal_works_where_the_notebook_has_many_files_open(lab: Session):
    lab.ok("import os\nmany = [os.open('/dev/null', os.O_RDONLY) for _ in range(1100)]")
    assert "/proc\n" in lab.ok('with lab.terminal("bash") as t:\n    t.run("cd /proc; pwd")').stdout


def test_a_detached_terminal_goes_on_and_is_found_again(lab: Session):
    lab.ok('with lab.terminal("sh") as t:\n    t.run("x=kept")\n    t.detach()')
    assert tracked()
    ran = lab.ok('with lab.terminal("sh") as t:\n    t.run("echo $x")')
    assert "kept" in ran.stdout
    assert tracked() == []


def test_a_visit_types_a_line_at_each_prompt_and_ends_with_the_last(lab: Session):
    ran = lab.ok('lab.visit("sh", "cd /proc; pwd", "exit 3")\nlab.process("visit").status')
    assert "lab# cd /proc; pwd\n/proc\nlab# exit 3\n" in ran.stdout
    assert ran.displays[0]["text/plain"] == "3"


def test_a_shell_that_waits_in_silence_is_woken_and_shows_its_prompt_more_than_once(lab: Session):
    woken = lab.ok('with lab.terminal("sh", wake="^M^M^M") as t:\n    t.run("echo up")')
    assert woken.stdout == "lab# echo up\nup\n"


def test_watch_tells_who_printed_and_who_is_frozen(lab: Session):
    lab.ok('group = lab.cgroup("box")\nclock = lab.spawn("while :; do date; sleep 0.2; done", name="clock", cgroup=group)')
    assert "printed nothing" not in lab.ok("lab.watch(group, clock, seconds=1)").text
    lab.ok("group.freeze()\nlab.watch(group, clock, seconds=0)")  # what came between the first look and the freeze
    text = lab.ok("lab.watch(group, clock, seconds=1)").text
    assert "printed nothing" in text
    assert "frozen" in text


def test_ctrl_c_in_watch_leaves_the_kernel_as_it_was(lab: Session):
    lab.ok('clock = lab.spawn("while :; do date; sleep 0.2; done", name="clock")')
    sent = lab.begin("print('on')\nlab.watch(clock, seconds=60)")
    while lab.message()["msg_type"] != "stream":
        pass
    lab.interrupt()
    assert "KeyboardInterrupt" in lab.finish(sent).error
    assert lab.ok("print(clock.alive)").stdout == "True\n"


def test_a_process_is_found_again_by_its_name(lab: Session):
    first = lab.ok('clock = lab.spawn("exec sleep 1000", name="clock")\nprint(clock.pid)').stdout
    assert lab.ok('clock = lab.spawn("exec sleep 1000", name="clock")\nprint(clock.pid)').stdout == first
    assert lab.ok('clock = lab.spawn("exec sleep 2000", name="clock")\nprint(clock.pid)').stdout != first
    assert len(tracked()) == 1


def test_a_closed_lab_says_so(lab: Session):
    lab.ok("lab.close()")
    assert "lab 9.2 is closed" in lab.run('lab.cgroup("box")').error
    lab.ok("lab.close()")


# a kernel that dies


def test_after_kill_9_the_next_opening_begins_anew(lab: Session):
    lab.ok('group = lab.cgroup("box")\nlab.spawn("exec sleep 1000", name="sleeper", cgroup=group)\ngroup.freeze()')
    lab.ok("%%lab\nmkdir m && mount -t tmpfs none m")
    lab.kill()
    second = Session()
    try:
        second.ok(OPEN)
        assert "not there" in second.ok('lab.check("made")').text
        assert tracked() == []
        second.ok('group = lab.cgroup("box")')
    finally:
        second.close()


# render and validate


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")])))
    shell = "%%lab\ndate\nls -l /proc/self/ns/net | cut -d' ' -f9-\necho stays"
    sources = [OPEN, 'group = lab.cgroup("box")', shell, 'lab.check("made")', "lab.close()"]
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    path = tmp_path / "trial.ipynb"
    nbformat.write(content, path)
    return path


def test_rendering_twice_gives_no_diff(notebook: Path):
    lines: list[str] = []
    first = render(notebook, lines.append)
    assert first.written
    assert first.refreshed == (1, 2, 3, 4, 5)
    assert [line.split()[1] for line in lines] == ["[1/5]", "[2/5]", "[3/5]", "[4/5]", "[5/5]"]
    stored = notebook.read_bytes()
    second = render(notebook, lines.append)
    assert not second.written, second
    assert notebook.read_bytes() == stored
    content = nbformat.read(notebook, as_version=4)
    assert content.metadata.labkit.source_sha256 == source_sha256(content)
    assert [cell.execution_count for cell in content.cells] == [1, 2, 3, 4, 5]
    assert "papermill" not in notebook.read_text()


def test_only_a_cell_that_says_something_else_is_refreshed(notebook: Path):
    render(notebook, str)
    content = nbformat.read(notebook, as_version=4)
    content.cells[2].source = content.cells[2].source.replace("stays", "goes")
    nbformat.write(content, notebook)
    assert render(notebook, str).refreshed == (3,)


def test_what_was_printed_goes_elsewhere_on_request_and_the_notebook_stays_as_it_was(notebook: Path, tmp_path: Path):
    stored = notebook.read_bytes()
    (tmp_path / "printed").mkdir()
    assert render(notebook, str, tmp_path / "printed").written
    assert notebook.read_bytes() == stored
    assert [cell.execution_count for cell in nbformat.read(tmp_path / "printed/trial.ipynb", as_version=4).cells] == [1, 2, 3, 4, 5]


def test_a_notebook_that_fails_leaves_the_file_as_it_was_and_names_the_cell(notebook: Path):
    content = nbformat.read(notebook, as_version=4)
    content.cells[2].source = "1 / 0"
    nbformat.write(content, notebook)
    stored = notebook.read_bytes()
    with pytest.raises(LabError, match=r"cell 3 .*ZeroDivisionError"):
        render(notebook, str)
    assert notebook.read_bytes() == stored
    assert list(notebook.parent.iterdir()) == [notebook]
    assert ledger.live() == []


def test_validate_passes_what_was_rendered_and_catches_a_changed_output(notebook: Path):
    render(notebook, str)
    result = validate(notebook)
    assert result.passed, str(result)
    assert result.coverage.compared == result.coverage.printing >= 4
    content = nbformat.read(notebook, as_version=4)
    content.cells[2].outputs[0].text = content.cells[2].outputs[0].text.replace("stays", "other")
    nbformat.write(content, notebook)
    result = validate(notebook)
    assert not result.passed
    assert "differs" in str(result)


def test_validate_refuses_a_notebook_without_outputs(notebook: Path):
    with pytest.raises(LabError, match="no output is stored"):
        validate(notebook)
