"""The ledger where the machine refuses it: a full disk, another user."""

import subprocess
import sys

FULL_DISK = """
import os, sys
from pathlib import Path
from labkit import ledger
from labkit.errors import LabError

things = Path(sys.argv[1])

@ledger.undoes("thing")
def remove(entry):
    (things / entry.key["name"]).unlink(missing_ok=True)

def make(name):
    with ledger.making("thing", name=name):
        (things / name).touch()

for number in range(1000):
    try:
        make(f"thing-{number}")
    except LabError as error:
        refused = error
        break
else:
    sys.exit("a file system of 16 KiB took 1000 entries")
print(refused)
names = {entry.key["name"] for entry in ledger.live()}
there = {path.name for path in things.iterdir()}
assert there and there <= names, there - names
ledger.undo()
assert list(things.iterdir()) == [], "a full disk kept an object"
assert ledger.live() == []
make("again")
ledger.undo()
"""

AS_NOBODY = """
import os
from labkit import ledger
from labkit.errors import LabError
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for act in (ledger.live, ledger.undo, lambda: ledger.intend("thing", name="a")):
    try:
        act()
    except LabError as error:
        print(error)
"""


def python(code, *arguments, state, prefix=()):
    environment = {"LABKIT_STATE": str(state), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run([*prefix, sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)


def test_on_a_full_disk_nothing_is_made_that_is_not_written_and_undo_still_ends(tmp_path):
    state, things = tmp_path / "state", tmp_path / "things"
    state.mkdir()
    things.mkdir()
    on_tiny_disk = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=16k tiny {state} && exec "$@"', "sh"]
    ended = python(FULL_DISK, str(things), state=state, prefix=on_tiny_disk)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"ledger {state}/ledger.jsonl cannot be written: No space left on device; remedy: free disk space\n"


def test_another_user_gets_one_line_with_the_remedy_for_each_act(tmp_path):
    tmp_path.chmod(0o755)
    state = tmp_path / "state"
    state.mkdir()
    (state / "ledger.jsonl").touch(0o600)
    for parent in [tmp_path, *tmp_path.parents[:2]]:
        parent.chmod(0o755)
    ended = python(AS_NOBODY, state=state)
    reason = "Permission denied; remedy: run as root"
    assert ended.stdout.splitlines() == [f"ledger {state}/ledger.jsonl cannot be read: {reason}"] * 3, ended.stderr
    (state / "ledger.jsonl").unlink()
    ended = python(AS_NOBODY, state=state)
    assert ended.stdout.splitlines() == [f"ledger {state}/ledger.jsonl cannot be written: {reason}"], ended.stderr
