"""unionfs, fuse-overlayfs and mergerfs, each really run: one directory over several, served by a daemon that ends with it."""

import errno
import os
import platform
import select
import signal
import subprocess

import pytest

from labkit import ledger, trace
from labkit.errors import CommandError, LabError, SyscallError
from labkit.kernel import mounts, union_programs
from labkit.kernel.mounts import ownership as mount_ledger
from labkit.kernel.union import PROGRAMS, Union

GONE = ("unionfs",) if platform.freedesktop_os_release()["VERSION_ID"] >= "13" else ()
"""What this Debian has no package of."""

ALL = [program for program in PROGRAMS if program not in GONE]
EACH = pytest.mark.parametrize("program", ALL)
COPYING = pytest.mark.parametrize("program", [program for program in ALL if program != "mergerfs"])
FIRST = ALL[0]


@pytest.fixture
def place(tmp_path):
    """The two directories of the course, and at the end everything that the ledger holds undone."""
    for name in ("dir1", "dir2/sub", "union"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("dir1/f1", "dir1/f2", "dir2/f3", "dir2/f4", "dir2/sub/deep"):
        (tmp_path / name).write_text(name)
    yield tmp_path
    ledger.undo()
    assert mounts.at_or_below(tmp_path) == ()
    assert daemons(tmp_path) == []


def daemons(place):
    done = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in done.splitlines() if line.startswith(PROGRAMS) and str(place) in line]


def kill_daemon(place, program):
    daemon = os.pidfd_open(union_programs.daemon(program, str(place / "union")))
    signal.pidfd_send_signal(daemon, signal.SIGKILL)
    assert select.select([daemon], [], [], 10)[0]
    os.close(daemon)


def make(place, program, modes=("RW", "RO")):
    return Union([(place / "dir1", modes[0]), (place / "dir2", modes[1])], place / "union", program=program)


def files(one):
    return {file.path: file for file in one.state().files}


def seen(one):
    found = set()
    for where, directories, names in os.walk(one.merged):
        directories[:] = [name for name in directories if not name.startswith(".unionfs")]
        found |= {os.path.relpath(os.path.join(where, name), one.merged) for name in (*directories, *names)}
    return found


def visible(one):
    return {path for path, file in files(one).items() if file.visible}


@EACH
def test_both_directories_are_seen_as_one_and_the_daemon_ends_with_the_mount(place, program):
    one = make(place, program).mount()
    assert seen(one) == {"f1", "f2", "f3", "f4", "sub", "sub/deep"} == visible(one)
    mount = mounts.at(place / "union")
    assert mount.fstype == f"fuse.{program}" == one.state().fstype
    assert len(daemons(place)) == 1
    one.unmount()
    assert daemons(place) == []
    assert not one.mounted
    assert list((place / "union").iterdir()) == []


@EACH
def test_a_new_file_lands_in_the_writable_branch(place, program):
    one = make(place, program).mount()
    (place / "union" / "new").write_text("new")
    assert (place / "dir1" / "new").read_text() == "new"
    assert files(one)["new"].layers == (0,)
    assert one.state().branches == (("branch", str(place / "dir1")), ("branch", str(place / "dir2")))


@COPYING
def test_a_file_of_a_read_only_branch_is_copied_up_when_it_is_changed(place, program):
    one = make(place, program).mount()
    with open(place / "union" / "f3", "a") as file:
        file.write(" more")
    assert (place / "dir1" / "f3").read_text() == "dir2/f3 more"
    assert (place / "dir2" / "f3").read_text() == "dir2/f3"
    assert files(one)["f3"].layers == (0, 1)


@COPYING
def test_what_is_removed_from_a_read_only_branch_is_hidden(place, program):
    one = make(place, program).mount()
    (place / "union" / "f4").unlink()
    (place / "union" / "sub" / "deep").unlink()
    assert (place / "dir2" / "f4").exists()
    state = files(one)
    assert (state["f4"].kind, state["f4"].visible, state["f4"].layers) == ("whiteout", False, (0, 1))
    assert (state["sub/deep"].kind, state["sub/deep"].visible) == ("whiteout", False)
    assert seen(one) == visible(one)
    (place / "union" / "sub").rmdir()
    (place / "union" / "sub").mkdir()
    (place / "union" / "sub" / "other").touch()
    state = files(one)
    assert (state["sub"].kind, state["sub/deep"].visible, state["sub/other"].visible) == ("opaque", False, True)
    assert seen(one) == visible(one)


def test_mergerfs_keeps_the_names_of_a_read_only_branch_and_changes_its_files_in_place(place):
    one = make(place, "mergerfs").mount()
    (place / "union" / "f3").write_text("changed")
    assert (place / "dir2" / "f3").read_text() == "changed"
    with pytest.raises(OSError) as caught:
        (place / "union" / "f4").unlink()
    assert caught.value.errno == errno.EROFS
    assert seen(one) == visible(one)


@EACH
def test_where_no_branch_is_writable_nothing_can_be_written(place, program):
    make(place, program, modes=("RO", "RO")).mount()
    with pytest.raises(OSError):
        (place / "union" / "new").touch()
    with pytest.raises(OSError):
        (place / "union" / "f3").write_text("changed")
    assert (place / "dir2" / "f3").read_text() == "dir2/f3"
    assert sorted(path.name for path in (place / "dir1").iterdir()) == ["f1", "f2"]


def test_without_a_writable_branch_what_is_typed_is_the_plainest_command(place):
    one = make(place, FIRST, modes=("RO", "RO"))
    with trace.collecting() as lines:
        one.mount()
    first = "-o lowerdir=" if FIRST == "fuse-overlayfs" else ""
    assert lines.shell() == f"{FIRST} {first}{place}/dir1:{place}/dir2 {place}/union"


@EACH
def test_the_traced_line_typed_into_a_shell_gives_the_same_mount(place, program):
    one = make(place, program)
    with trace.collecting() as lines:
        one.mount()
        one.unmount()
    first, second = lines.shell().splitlines()
    assert first.startswith(f"mkdir -p {place}/.dir1.work && " if program == "fuse-overlayfs" else f"{program} ")
    assert second == f"umount {place}/union"
    one.mount()
    before = described(place)
    one.unmount()
    subprocess.run(["bash", "-e", "-c", first], check=True)
    assert described(place) == before
    subprocess.run(["bash", "-e", "-c", second], check=True)
    assert mounts.at(place / "union") is None


def described(place):
    mount = mounts.at(place / "union")
    return mount.fstype, mount.source, set(mount.options), set(mount.super_options)


@EACH
def test_the_daemon_is_in_a_cgroup_of_the_lab(place, program):
    make(place, program).mount()
    pid = union_programs.daemon(program, str(place / "union"))
    with open(f"/proc/{pid}/cgroup") as file:
        unified = next(line for line in file if line.startswith("0::"))
    assert unified.startswith(f"0::/lab-{ledger.owner() or 'lab'}/processes/union")


@EACH
def test_mounting_and_unmounting_twice_is_once(place, program):
    one = make(place, program).mount()
    assert one.mount() is one
    assert make(place, program).mount().mounted
    assert len(mounts.at_or_below(place)) == len(daemons(place)) == 1
    one.unmount()
    one.unmount()
    with pytest.raises(LabError, match="no union is mounted"):
        Union.find(place / "union")


def test_other_branches_on_the_same_directory_are_refused(place):
    make(place, FIRST).mount()
    with pytest.raises(LabError, match=rf"another mount of the lab: fuse\.{FIRST} {FIRST}; remedy: unmount it first"):
        make(place, FIRST, modes=("RO", "RO")).mount()


@EACH
def test_a_union_whose_daemon_was_killed_is_mounted_anew(place, program):
    one = make(place, program).mount()
    kill_daemon(place, program)
    with pytest.raises(OSError) as caught:
        os.listdir(place / "union")
    assert caught.value.errno == errno.ENOTCONN
    assert one.mount().mounted
    assert "f3" in os.listdir(place / "union")
    assert len(mounts.at_or_below(place)) == 1


@EACH
def test_undo_removes_a_union_whose_daemon_was_killed(place, program):
    make(place, program).mount()
    kill_daemon(place, program)
    ledger.undo()
    assert mounts.at(place / "union") is None


@EACH
def test_undo_removes_mount_and_daemon(place, program):
    make(place, program).mount()
    ledger.undo()
    assert mounts.at(place / "union") is None
    assert daemons(place) == []
    assert ledger.live() == []


@EACH
def test_a_union_that_was_typed_by_hand_is_found_with_its_branches(place, program):
    mount_ledger.claim(place)
    words = ["dir1=RW:dir2/=RO"]
    if program == "fuse-overlayfs":
        (place / "work").mkdir()
        words = ["-o", "lowerdir=dir2/,upperdir=dir1,workdir=work"]
    subprocess.run([program, *words, "union"], cwd=place, env={**os.environ, "PWD": str(place)}, check=True)
    found = Union.find(place / "union")
    assert found.branches == ((place / "dir1", "RW"), (place / "dir2", "RO"))
    assert found.program == program
    assert "f3" in visible(found)
    assert make(place, program).mount().mounted
    assert len(daemons(place)) <= 1
    found.unmount()
    assert mounts.at(place / "union") is None


def test_a_directory_that_is_somebody_s_mount_point_is_refused(place):
    subprocess.run(["mount", "-t", "tmpfs", "foreign", place / "union"], check=True)
    try:
        with pytest.raises(LabError, match="is a mount point already: tmpfs foreign"):
            make(place, FIRST).mount()
        with pytest.raises(LabError, match="no mount of the lab"):
            make(place, FIRST).unmount()
        assert daemons(place) == []
    finally:
        subprocess.run(["umount", place / "union"], check=True)


def test_a_union_in_use_is_ebusy_with_the_holder_and_goes_on(place):
    one = make(place, FIRST).mount()
    process = subprocess.Popen(["sleep", "1000"], cwd=place / "union")
    try:
        with pytest.raises(SyscallError, match="EBUSY") as caught:
            one.unmount()
        assert caught.value.cause == f"in use by sleep (pid {process.pid}, cwd)"
        assert "f1" in os.listdir(place / "union")
    finally:
        process.kill()
        process.wait()
    one.unmount()


def test_a_daemon_that_ends_without_mounting_says_why(place, monkeypatch):
    binaries = place / "bin"
    binaries.mkdir()
    (binaries / FIRST).write_text("#!/bin/sh\necho no fuse today >&2\nexit 3\n")
    (binaries / FIRST).chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    with pytest.raises(CommandError, match=f"{FIRST}: exit status 3: no fuse today"):
        make(place, FIRST).mount()
    assert [entry.kind for entry in ledger.live() if entry.kind == "mount"] == []


def test_branches_with_blanks_are_mounted(place):
    (place / "with blank").mkdir()
    (place / "with blank" / "odd name").touch()
    one = Union([(place / "with blank", "RW"), (place / "dir2", "RO")], place / "union").mount()
    assert "odd name" in seen(one)
    assert visible(one) == seen(one)
