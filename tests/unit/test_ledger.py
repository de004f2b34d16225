"""The ledger: what is written before an object is made, and what undoing does after each way to die."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labkit import ledger, trace
from labkit.errors import LabError


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """Give each test a ledger, an owner and a table of undo functions of its own."""
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(ledger, "_undoes", {})
    ledger.own("2.1")
    yield
    ledger.own("")


@pytest.fixture
def things(tmp_path):
    """Let a directory stand for the kernel: a "thing" is a file in it, told from another of its name by its inode."""
    room = tmp_path / "things"
    room.mkdir()

    @ledger.undoes("thing")
    def remove(entry):
        path = room / entry.key["name"]
        if path.exists() and entry.identity.get("inode") in (None, path.stat().st_ino):
            path.unlink()

    return room


def make(room, name):
    with ledger.making("thing", name=name) as entry:
        (room / name).touch()
        entry.identity.update(inode=(room / name).stat().st_ino)
    return entry


def ledger_file():
    return ledger.state() / "ledger.jsonl"


def written():
    return [json.loads(line)["what"] for line in ledger_file().read_text().splitlines()]


def test_an_intent_is_on_disk_before_the_object_is_made(things):
    with ledger.making("thing", name="a"):
        assert written() == ["intent"]
    assert written() == ["intent", "made"]


def test_undoing_with_no_ledger_at_all_does_nothing():
    assert ledger.undo() == []
    assert not ledger_file().exists()


def test_undo_removes_the_latest_first(things):
    order = []
    ledger.undoes("noted")(lambda entry: order.append(entry.key["name"]))
    for name in "abc":
        with ledger.making("noted", name=name):
            pass
    ledger.undo()
    assert order == ["c", "b", "a"]


def test_a_claim_takes_its_place_in_the_order_when_its_object_is_made(things):
    order = []
    ledger.undoes("noted")(lambda entry: order.append(entry.key["name"]))
    claim = ledger.intend("noted", name="claimed")
    for name in ("other", "claimed"):
        with ledger.making("noted", name=name) as entry:
            pass
    assert entry.id == claim.id
    ledger.undo()
    assert order == ["claimed", "other"]


def test_the_ledger_is_emptied_when_nothing_is_left(things):
    make(things, "a")
    ledger.undo()
    assert list(things.iterdir()) == []
    assert ledger_file().read_bytes() == b""


def test_one_undo_that_fails_does_not_keep_the_others_and_stays_in_the_ledger(things):
    @ledger.undoes("stuck")
    def resist(entry):
        raise LabError("stuck: it resists")

    make(things, "a")
    with ledger.making("stuck", name="s"):
        pass
    make(things, "b")
    with pytest.raises(ExceptionGroup) as caught:
        ledger.undo()
    assert [str(error) for error in caught.value.exceptions] == ["stuck: it resists"]
    assert list(things.iterdir()) == []
    assert [entry.kind for entry in ledger.live()] == ["stuck"]


def test_what_is_held_by_another_object_is_removed_once_that_one_is_gone(tmp_path):
    outer = tmp_path / "outer"
    ledger.undoes("directory")(lambda entry: Path(entry.key["path"]).rmdir())
    ledger.undoes("file")(lambda entry: Path(entry.key["path"]).unlink(missing_ok=True))
    ledger.intend("file", path=str(outer / "file"))
    with ledger.making("directory", path=str(outer)):
        outer.mkdir()
    (outer / "file").touch()
    ledger.undo()
    assert not outer.exists()
    assert ledger.live() == []


def test_a_kind_that_no_loaded_module_removes_stays_written_and_is_named():
    ledger.intend("comet", name="halley")
    with pytest.raises(ExceptionGroup) as caught:
        ledger.undo()
    assert "nothing here knows how to remove a comet" in str(caught.value.exceptions[0])
    assert [entry.kind for entry in ledger.live()] == ["comet"]


def test_undo_of_one_lab_leaves_what_another_made(things):
    make(things, "mine")
    ledger.own("2.2")
    make(things, "theirs")
    assert [entry.key["name"] for entry in ledger.undo("2.1")] == ["mine"]
    assert [path.name for path in things.iterdir()] == ["theirs"]
    assert [entry.owner for entry in ledger.live()] == ["2.2"]


def test_an_object_of_the_same_name_that_is_not_the_one_made_is_left_alone(things):
    make(things, "a")
    (things / "foreign").touch()
    (things / "foreign").rename(things / "a")
    ledger.undo()
    assert [path.name for path in things.iterdir()] == ["a"]


def test_an_intent_written_twice_is_one_entry(things):
    assert ledger.intend("thing", name="a").id == ledger.intend("thing", name="a").id
    assert len(ledger.live()) == 1


def test_the_same_name_of_another_owner_or_with_a_longer_key_is_another_entry(things):
    first = ledger.intend("thing", name="a")
    longer = ledger.intend("thing", name="a", netns="x")
    ledger.own("2.2")
    assert len({first.id, longer.id, ledger.intend("thing", name="a").id}) == 3


def test_an_object_made_again_after_it_was_removed_by_hand_is_undone_too(things):
    make(things, "a")
    (things / "keep-the-inode").touch()
    (things / "a").unlink()
    make(things, "a")
    assert ledger.find("thing", name="a").identity["inode"] == (things / "a").stat().st_ino
    ledger.undo()
    assert [path.name for path in things.iterdir()] == ["keep-the-inode"]


def test_two_objects_of_one_name_are_two_entries():
    """As with two mounts stacked on one directory."""
    stack = []
    ledger.undoes("mount")(lambda entry: stack.remove(entry.identity["id"]))
    for number in (1, 2):
        with ledger.making("mount", target="/x") as entry:
            stack.append(number)
            entry.identity.update(id=number)
    ledger.undo()
    assert stack == []


def test_when_making_fails_what_was_made_so_far_is_undone_and_the_error_goes_on(things):
    def fail_halfway():
        with ledger.making("thing", name="a"):
            (things / "a").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert list(things.iterdir()) == []
    assert ledger.live() == []


def test_an_undo_that_fails_does_not_hide_the_first_error():
    @ledger.undoes("stuck")
    def resist(entry):
        raise LabError("stuck: it resists")

    with pytest.raises(ZeroDivisionError) as caught, ledger.making("stuck", name="s"):
        raise ZeroDivisionError
    assert "stuck: it resists" in caught.value.__notes__[0]
    assert [entry.kind for entry in ledger.live()] == ["stuck"]


def test_undoing_leaves_no_line_in_the_trace():
    ledger.undoes("noted")(lambda entry: trace.record("rm a"))
    with trace.collecting() as lines:
        with ledger.making("noted", name="a"):
            trace.record("touch a")
        ledger.undo()
        with pytest.raises(ZeroDivisionError), ledger.making("noted", name="b"):
            raise ZeroDivisionError
    assert lines.shell() == "touch a"


def test_what_an_earlier_boot_took_with_it_is_not_live_and_not_undone(things, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(ledger, "_boot_id", lambda: "an earlier boot")
        make(things, "a")
    assert ledger.live() == []
    assert ledger.find("thing", name="a") is None
    assert ledger.undo() == []
    assert (things / "a").exists(), "after a reboot an object of that name is somebody else's"
    assert ledger_file().read_bytes() == b""


def test_an_object_made_after_a_reboot_under_its_old_name_is_undone(things, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(ledger, "_boot_id", lambda: "an earlier boot")
        make(things, "a")
    (things / "a").unlink()
    make(things, "a")
    ledger.undo()
    assert list(things.iterdir()) == []


def test_what_survives_a_reboot_is_undone_after_it(monkeypatch):
    removed = []
    ledger.undoes("tree", survives_reboot=True)(lambda entry: removed.append(entry.key["path"]))
    with monkeypatch.context() as earlier:
        earlier.setattr(ledger, "_boot_id", lambda: "an earlier boot")
        ledger.intend("tree", path="/x")
    ledger.undo()
    assert removed == ["/x"]


@pytest.mark.parametrize("tail", [b'{"what": "intent", "id": "x"', b"\0\0\0\0", b"\xff\xfe", b"[]", b"7", b'"what"', b"{}"])
def test_a_torn_or_foreign_line_is_passed_over_and_the_next_one_is_whole(things, tail):
    make(things, "a")
    with ledger_file().open("ab") as file:
        file.write(tail)
    make(things, "b")
    assert [entry.key["name"] for entry in ledger.live()] == ["a", "b"]
    ledger.undo()
    assert list(things.iterdir()) == []


@pytest.mark.parametrize("length", range(1, 60, 7))
def test_a_ledger_cut_at_any_byte_of_its_last_line_still_undoes(things, length):
    make(things, "a")
    text = ledger_file().read_bytes()
    ledger_file().write_bytes(text[:-length])
    assert [entry.key["name"] for entry in ledger.undo()] == ["a"]
    assert list(things.iterdir()) == []


def test_a_newer_version_may_write_more_than_this_one_reads(things):
    entry = ledger.intend("thing", name="a")
    record = json.loads(ledger_file().read_text())
    ledger_file().write_text(json.dumps({**record, "colour": "blue"}) + "\n")
    assert ledger.live() == [entry]


def test_processes_that_write_at_once_lose_no_line():
    code = "from labkit import ledger; import sys; ledger.own(sys.argv[1]); [ledger.intend('thing', name=str(n)) for n in range(40)]"
    writers = [subprocess.Popen([sys.executable, "-c", code, owner]) for owner in ("one", "two")]
    assert [writer.wait() for writer in writers] == [0, 0]
    for owner in ("one", "two"):
        assert sorted(int(entry.key["name"]) for entry in ledger.live(owner)) == list(range(40))


def test_threads_that_write_at_once_lose_no_line():
    threads = [threading.Thread(target=ledger.intend, args=("thing",), kwargs={"name": str(n)}) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.live()) == 20


def test_the_ledger_is_not_emptied_over_an_intent_that_another_process_wrote_meanwhile(things):
    make(things, "a")
    ledger.undoes("late")(lambda entry: subprocess.run(
        [sys.executable, "-c", "from labkit import ledger; ledger.own('other'); ledger.intend('thing', name='b')"], check=True,
    ))
    ledger.intend("late", name="x")
    ledger.undo("2.1")
    assert [entry.key["name"] for entry in ledger.live()] == ["b"]


def killed_at(step, act):
    """Fork, let the child run `act`, and kill -9 it at the step-th line of the ledger that it executes; return whether it was killed."""
    child = os.fork()
    if child == 0:
        left = step

        def count(frame, event, _):
            nonlocal left
            if frame.f_code.co_filename != ledger.__file__:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return count

        sys.settrace(count)
        try:
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize(("survives", "lines"), [(False, ["intent"]), (True, ["intent", "made", "gone"])])
def test_what_a_crash_of_the_machine_ends_anyway_is_synced_before_it_is_made_only(things, monkeypatch, survives, lines):
    ledger.undoes("kept", survives_reboot=survives)(lambda _: None)
    make(things, "first")  # the name of a new ledger is synced too
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(written()[-1]))
    with ledger.making("kept", name="a") as entry:
        assert synced == ["intent"]
        entry.identity.update(inode=1)
    ledger.undo_one(entry)
    assert synced == lines


def test_only_what_was_appended_is_read_again(monkeypatch):
    first = ledger.intend("thing", name="a")
    assert [entry.id for entry in ledger.live()] == [first.id]
    read = []
    apply = ledger._apply
    monkeypatch.setattr(ledger, "_apply", lambda line, entries: (read.append(line), apply(line, entries)))
    ledger.made(first, inode=1)
    assert [entry.identity for entry in ledger.live()] == [{"inode": 1}]
    assert [json.loads(line)["what"] for line in read if line] == ["made"]


def test_what_a_caller_does_to_an_entry_stays_his_own():
    ledger.intend("thing", name="a")
    ledger.live()[0].identity["inode"] = 1
    assert ledger.live()[0].identity == {}


@pytest.mark.parametrize("more", [0, 1, 5])
def test_a_ledger_that_another_process_emptied_and_wrote_again_is_read_from_its_beginning(more):
    script = """if 1:
        from labkit import ledger
        ledger.undoes("thing")(lambda entry: None)
        for number in range({}):
            ledger.intend("thing", name=f"a{{number}}")
        {}"""
    run = [sys.executable, "-c"]
    subprocess.run([*run, script.format(2, "")], check=True)
    before = {entry.id for entry in ledger.live()}
    size = ledger_file().stat().st_size
    subprocess.run([*run, script.format(0, "ledger.undo()")], check=True)
    subprocess.run([*run, script.format(2 + more, "")], check=True)
    assert ledger_file().stat().st_size >= size
    now = ledger.live()
    assert len(now) == 2 + more
    assert not before & {entry.id for entry in now}


def test_killed_with_9_at_any_line_of_making_nothing_is_left_after_undo(things):
    steps = 0
    while killed_at(steps, lambda: make(things, "a")):
        ledger.undo()
        assert list(things.iterdir()) == [], f"left behind when killed at line {steps}"
        assert ledger.live() == []
        steps += 1
    assert steps > 30
    assert [path.name for path in things.iterdir()] == ["a"], "the last child was not killed: the object is made"
    ledger.undo()


def test_killed_with_9_at_any_line_of_undo_a_second_undo_ends_it(things):
    steps = 0
    while True:
        make(things, "a")
        make(things, "b")
        if not killed_at(steps, ledger.undo):
            break
        ledger.undo()
        assert list(things.iterdir()) == [], f"left behind when killed at line {steps}"
        assert ledger.live() == []
        steps += 7
    assert steps > 30
    assert list(things.iterdir()) == []
    assert ledger.live() == []


def test_a_state_directory_that_cannot_be_made_gives_one_line_and_nothing_is_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "file" / "state"))
    with pytest.raises(LabError) as caught, ledger.making("thing", name="a"):
        pytest.fail("the block ran without an intent on disk")
    assert "\n" not in str(caught.value)
    assert "ledger.jsonl cannot be" in str(caught.value)


def test_the_state_directory_is_that_of_the_environment_or_var_lib(monkeypatch):
    monkeypatch.delenv("LABKIT_STATE")
    assert str(ledger.state()) == "/var/lib/labkit"
