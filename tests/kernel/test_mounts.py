"""Mounts of the lab, read back from the kernel: what they do, what is refused, what undo leaves alone."""

import errno
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from labkit import ledger, trace
from labkit.errors import LabError, SyscallError
from labkit.kernel import mounts, processes
from labkit.kernel.mounts import ownership as mount_ledger


def run(*argv):
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def place(tmp_path):
    """Directories, and at the end everything that the ledger holds undone."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    yield tmp_path
    ledger.undo()
    assert ledger.live() == []
    assert mounts.at_or_below(tmp_path) == ()


@pytest.fixture
def child():
    """A process in a mount namespace of its own whose mounts are peers of ours where they are shared."""
    process = None

    def start():
        nonlocal process
        process = processes.start(["sleep", "1000"], new=["mount"], propagation="unchanged")
        return process

    yield start
    if process is not None:
        process.kill()
        process = None  # with the object its descriptors go


def inside(process, *argv):
    return run("nsenter", f"--mount=/proc/{process.pid}/ns/mnt", *argv)


def sees(process, path):
    return any(mount.mountpoint == str(path) for mount in mounts.mountinfo(process.pid))


# bind


def test_a_bind_mount_shows_the_same_directory_at_two_places(place):
    made = mounts.bind(place / "a", place / "b")
    (place / "a" / "file").write_text("one")
    assert (place / "b" / "file").read_text() == "one"
    below = next(mount for mount in mounts.mountinfo() if mount.id == mounts.mount_id(place / "a"))
    assert (made.mountpoint, made.device, made.fstype) == (str(place / "b"), below.device, below.fstype)
    assert made.root.endswith("/a")


def test_a_read_only_bind_mount_refuses_writes_and_its_source_does_not(place):
    made = mounts.bind(place / "a", place / "b", readonly=True)
    assert "ro" in made.options
    with pytest.raises(OSError) as caught:
        (place / "b" / "file").write_text("x")
    assert caught.value.errno == errno.EROFS
    (place / "a" / "file").write_text("x")


def test_a_read_only_bind_mount_keeps_the_other_flags(place):
    mounts.mount("tmpfs", place / "a", "tmpfs", "nosuid,nodev,noexec")
    made = mounts.bind(place / "a", place / "b", readonly=True)
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(made.options)
    assert "ro" not in mounts.at(place / "a").options


def test_a_recursive_bind_shows_what_is_mounted_below_and_read_only_means_all_of_it(place):
    (place / "a" / "sub").mkdir()
    mounts.tmpfs(place / "a" / "sub")
    mounts.bind(place / "a", place / "b", recursive=True, readonly=True)
    assert mounts.at(place / "b" / "sub").fstype == "tmpfs"
    for directory in (place / "b", place / "b" / "sub"):
        with pytest.raises(OSError, match="Read-only"):
            (directory / "file").touch()
    (place / "a" / "sub" / "file").touch()
    mounts.unmount(place / "b")
    assert mounts.at_or_below(place / "b") == ()
    assert mounts.at(place / "a" / "sub") is not None


def test_a_file_is_bound_over_a_file(place):
    (place / "one").write_text("one")
    (place / "two").write_text("two")
    mounts.bind(place / "one", place / "two")
    assert (place / "two").read_text() == "one"
    mounts.unmount(place / "two")
    assert (place / "two").read_text() == "two"


def test_a_file_over_a_directory_is_enotdir_with_its_cause(place):
    (place / "file").touch()
    with pytest.raises(SyscallError, match=r'^mount\(".*/file", ".*/a", NULL, MS_BIND, NULL\): ENOTDIR') as caught:
        mounts.bind(place / "file", place / "a")
    assert caught.value.cause == "one is a directory, the other is not"
    assert ledger.live() == []


# tmpfs and other file systems


def test_a_tmpfs_is_as_large_as_it_was_told(place):
    made = mounts.tmpfs(place / "a", size="64k")
    assert "size=64k" in made.super_options
    with pytest.raises(OSError) as caught:
        (place / "a" / "file").write_bytes(bytes(128 * 1024))
    assert caught.value.errno == errno.ENOSPC
    statistics = os.statvfs(place / "a")
    assert statistics.f_blocks * statistics.f_frsize == 64 * 1024


@pytest.mark.parametrize("size", ["lots", "-1", "1.5m", "16m,mode=777", ""])
def test_a_size_that_is_none_is_refused(place, size):
    with pytest.raises(LabError, match="is no size"):
        mounts.tmpfs(place / "a", size=size)
    assert mounts.at(place / "a") is None


def test_an_unknown_file_system_is_enodev_with_its_cause(place):
    with pytest.raises(SyscallError, match=r'^mount\("x", ".*/a", "nosuchfs", MS_RDONLY, NULL\): ENODEV') as caught:
        mounts.mount("x", place / "a", "nosuchfs", "ro")
    assert caught.value.cause == "nosuchfs is not in /proc/filesystems"
    assert ledger.live() == []


def test_a_directory_that_is_not_there_is_refused_before_the_ledger_is_asked(place):
    with pytest.raises(LabError, match=f"{place}/missing is not there; remedy: mkdir"):
        mounts.tmpfs(place / "missing")
    with pytest.raises(LabError, match=f"{place}/missing is not there"):
        mounts.bind(place / "missing", place / "a")
    assert ledger.live() == []


def test_names_with_blanks_and_commas_are_mounted_and_found(place):
    odd = place / "a b,c:d\\e\tf"
    odd.mkdir()
    assert mounts.tmpfs(odd).mountpoint == str(odd)
    mounts.unmount(odd)
    assert mounts.at(odd) is None


# the same again, and what is foreign


def test_the_same_mount_twice_is_one_mount(place):
    first = mounts.tmpfs(place / "a", size="1m")
    (place / "a" / "kept").touch()
    assert mounts.tmpfs(place / "a", size="1m") == first
    assert mounts.bind(place / "a", place / "b") == mounts.bind(place / "a", place / "b")
    assert (place / "a" / "kept").exists()
    assert len(mounts.at_or_below(place)) == 2


def test_another_mount_over_our_own_is_refused(place):
    mounts.tmpfs(place / "a", size="1m")
    with pytest.raises(LabError, match="another mount of the lab: tmpfs tmpfs; remedy: unmount it first"):
        mounts.tmpfs(place / "a", size="2m")
    with pytest.raises(LabError, match="another mount of the lab"):
        mounts.bind(place / "b", place / "a")


def test_a_mount_point_of_somebody_else_is_refused_and_left_alone(place):
    run("mount", "-t", "tmpfs", "foreign", place / "a")
    try:
        with pytest.raises(LabError, match="is a mount point already: tmpfs foreign; remedy: choose another directory"):
            mounts.tmpfs(place / "a")
        for change in (mounts.unmount, lambda target: mounts.remount(target, "ro"), lambda target: mounts.propagation(target, "shared")):
            with pytest.raises(LabError, match="is no mount of the lab and stays as it is"):
                change(place / "a")
        ledger.undo()
        assert mounts.at(place / "a").source == "foreign"
    finally:
        run("umount", place / "a")


def test_undo_leaves_alone_what_somebody_else_mounted_in_place_of_ours(place):
    mounts.tmpfs(place / "a")
    run("umount", place / "a")
    run("mount", "-t", "ramfs", "foreign", place / "a")
    try:
        ledger.undo()
        assert mounts.at(place / "a").source == "foreign"
        assert ledger.live() == []
    finally:
        run("umount", place / "a")


def test_undo_refuses_where_something_foreign_lies_over_ours_and_goes_on_when_it_is_gone(place):
    mounts.tmpfs(place / "a")
    run("mount", "-t", "ramfs", "foreign", place / "a")
    with pytest.raises(ExceptionGroup) as caught:
        ledger.undo()
    assert f"{place}/a (ramfs foreign) lies over a mount of the lab" in str(caught.value.exceptions[0])
    run("umount", place / "a")
    ledger.undo()
    assert mounts.at(place / "a") is None


def test_undo_names_a_foreign_mount_below_and_leaves_both(place):
    mounts.tmpfs(place / "a")
    (place / "a" / "sub").mkdir()
    run("mount", "-t", "tmpfs", "foreign", place / "a" / "sub")
    for removing in (lambda: mounts.unmount(place / "a"), lambda: mount_ledger._undo(ledger.live()[0])):
        with pytest.raises(LabError, match=rf"{place}/a/sub \(tmpfs foreign\) is mounted below {place}/a"):
            removing()
    assert mounts.at(place / "a" / "sub").source == "foreign"
    run("umount", place / "a" / "sub")


def test_an_intent_whose_maker_died_takes_the_mount_that_is_there(place):
    ledger.intend("mount", target=str(place / "a"))
    run("mount", "-t", "tmpfs", "typed", place / "a")
    ledger.undo()
    assert mounts.at(place / "a") is None


def test_mounts_in_a_claimed_directory_are_ours_whoever_typed_them(place):
    mount_ledger.claim(place)
    run("mount", "-t", "tmpfs", "typed", place / "a")
    assert mounts.is_ours(mounts.at(place / "a"))
    assert mounts.mount("typed", place / "a", "tmpfs").source == "typed"
    mounts.unmount(place / "a")
    assert mounts.at(place / "a") is None


def test_undo_of_a_claim_detaches_what_was_typed_there_and_nothing_elsewhere(place):
    (place / "claimed" / "sub").mkdir(parents=True)
    mount_ledger.claim(place / "claimed")
    run("mount", "-t", "tmpfs", "typed", place / "claimed" / "sub")
    run("mount", "-t", "tmpfs", "typed over it", place / "claimed" / "sub")
    run("mount", "-t", "tmpfs", "foreign", place / "a")
    try:
        mount_ledger.claim(place / "claimed")
        ledger.undo()
        assert [mount.source for mount in mounts.at_or_below(place)] == ["foreign"]
    finally:
        run("umount", place / "a")


def test_a_directory_with_a_mount_in_it_cannot_be_claimed(place):
    run("mount", "-t", "tmpfs", "foreign", place / "a")
    try:
        with pytest.raises(LabError, match=rf"{place}/a \(tmpfs foreign\) is mounted in {place}; remedy: umount"):
            mount_ledger.claim(place)
        assert ledger.live() == []
    finally:
        run("umount", place / "a")


# unmount


def test_unmount_says_who_is_in_the_way(place):
    mounts.tmpfs(place / "a")
    (place / "a" / "file").write_text("x" * 4096)
    with processes_in(place / "a") as (shell, reader):
        with pytest.raises(SyscallError, match=r'^umount2\(".*/a", UMOUNT_NOFOLLOW\): EBUSY') as caught:
            mounts.unmount(place / "a")
        assert f"sleep (pid {shell.pid}, cwd)" in caught.value.cause
        assert f"sleep (pid {reader.pid}, fd 0)" in caught.value.cause
        assert mounts.at(place / "a") is not None
    mounts.unmount(place / "a")


class processes_in:  # noqa: N801  used as a word
    """Two processes that use a directory: one works in it, one reads a file of it."""

    def __init__(self, directory):
        self.directory = directory

    def __enter__(self):
        with open(self.directory / "file") as file:
            self.reader = subprocess.Popen(["sleep", "1000"], stdin=file, cwd="/")
        self.shell = subprocess.Popen(["sleep", "1000"], cwd=self.directory)
        return self.shell, self.reader

    def __exit__(self, *_):
        for process in (self.shell, self.reader):
            process.kill()
            process.wait()


def test_a_program_that_runs_from_a_mount_holds_it_by_its_mapping(place):
    mounts.tmpfs(place / "a")
    shutil.copy("/bin/sleep", place / "a" / "sleep")
    process = subprocess.Popen([place / "a" / "sleep", "1000"], cwd="/")
    try:
        (holder,) = mounts.holders(mounts.at(place / "a"))
        assert str(holder) == f"sleep (pid {process.pid}, map)"
    finally:
        process.kill()
        process.wait()


def test_a_process_that_uses_the_directory_by_another_mount_does_not_hold_this_one(place):
    mounts.bind(place / "a", place / "b")
    process = subprocess.Popen(["sleep", "1000"], cwd=place / "a")
    try:
        assert mounts.holders(mounts.at(place / "b")) == ()
        mounts.unmount(place / "b")
    finally:
        process.kill()
        process.wait()


def test_undo_detaches_a_mount_that_is_in_use(place):
    mounts.tmpfs(place / "a")
    process = subprocess.Popen(["sleep", "1000"], cwd=place / "a")
    try:
        ledger.undo()
        assert mounts.at(place / "a") is None
    finally:
        process.kill()
        process.wait()


def test_unmount_where_nothing_is_mounted_is_einval_and_says_so(place):
    with pytest.raises(SyscallError, match="EINVAL") as caught:
        mounts.unmount(place / "a")
    assert caught.value.cause == f"nothing is mounted on {place}/a"


def test_a_mount_that_was_unmounted_by_hand_is_forgotten(place):
    mounts.tmpfs(place / "a")
    run("umount", place / "a")
    mounts.unmount(place / "a")
    assert ledger.live() == []


# remount


def test_remount_changes_what_is_named_and_keeps_the_rest(place):
    mounts.mount("tmpfs", place / "a", "tmpfs", "nosuid,size=64k")
    assert {"ro", "nosuid"} <= set(mounts.remount(place / "a", "ro").options)
    with pytest.raises(OSError, match="Read-only"):
        (place / "a" / "x").touch()
    again = mounts.remount(place / "a", "rw,size=128k")
    assert {"rw", "nosuid"} <= set(again.options)
    assert "size=128k" in again.super_options
    (place / "a" / "x").touch()


def test_remount_of_a_bind_mount_never_changes_the_file_system_it_shows(place):
    mounts.tmpfs(place / "a")
    mounts.bind(place / "a", place / "b")
    assert "ro" in mounts.remount(place / "b", "ro").options
    (place / "a" / "still-writable").touch()
    with pytest.raises(LabError, match="size=1m is no option of a bind mount"):
        mounts.remount(place / "b", "size=1m")


def test_remount_read_only_with_a_file_open_for_writing_is_ebusy(place):
    mounts.tmpfs(place / "a")
    with open(place / "a" / "file", "w"), pytest.raises(SyscallError, match=r"MS_RDONLY\|MS_REMOUNT\|MS_RELATIME, NULL\): EBUSY"):
        mounts.remount(place / "a", "ro")


# propagation, seen from another mount namespace


def test_a_shared_mount_shows_in_both_directions(place, child):
    mounts.tmpfs(place / "a")
    assert mounts.propagation(place / "a", "shared").propagation == "shared"
    process = child()
    for name in ("ours", "theirs"):
        (place / "a" / name).mkdir()
    mounts.tmpfs(place / "a" / "ours")
    assert sees(process, place / "a" / "ours")
    inside(process, "mount", "-t", "tmpfs", "theirs", place / "a" / "theirs")
    assert mounts.at(place / "a" / "theirs").source == "theirs"
    inside(process, "umount", place / "a" / "theirs")
    mounts.unmount(place / "a" / "ours")
    assert not sees(process, place / "a" / "ours")


def test_a_slave_mount_takes_what_its_master_gets_and_gives_nothing(place, child):
    mounts.tmpfs(place / "a")
    mounts.propagation(place / "a", "shared")
    process = child()
    assert mounts.propagation(place / "a", "slave").propagation == "slave"
    for name in ("ours", "theirs"):
        (place / "a" / name).mkdir()
    mounts.tmpfs(place / "a" / "ours")
    assert not sees(process, place / "a" / "ours")
    inside(process, "mount", "-t", "tmpfs", "theirs", place / "a" / "theirs")
    assert mounts.at(place / "a" / "theirs").source == "theirs"
    inside(process, "umount", place / "a" / "theirs")
    assert mounts.at(place / "a" / "theirs") is None


def test_a_private_mount_shows_in_no_direction(place, child):
    mounts.tmpfs(place / "a")
    mounts.propagation(place / "a", "shared")
    mounts.propagation(place / "a", "private")
    process = child()
    for name in ("ours", "theirs"):
        (place / "a" / name).mkdir()
    mounts.tmpfs(place / "a" / "ours")
    inside(process, "mount", "-t", "tmpfs", "theirs", place / "a" / "theirs")
    assert not sees(process, place / "a" / "ours")
    assert mounts.at(place / "a" / "theirs") is None


def test_an_unbindable_mount_cannot_be_copied_alone_nor_with_its_parent(place, child):
    mounts.tmpfs(place / "a")
    (place / "a" / "sub").mkdir()
    mounts.tmpfs(place / "a" / "sub")
    assert mounts.propagation(place / "a" / "sub", "unbindable").propagation == "unbindable"
    with pytest.raises(SyscallError, match="EINVAL"):
        mounts.bind(place / "a" / "sub", place / "b")
    mounts.bind(place / "a", place / "c", recursive=True)
    process = child()
    assert sees(process, place / "a" / "sub")
    assert sees(process, place / "c")
    assert not sees(process, place / "c" / "sub")


def test_recursive_propagation_reaches_the_mounts_below_and_refuses_a_foreign_one(place):
    mounts.tmpfs(place / "a")
    (place / "a" / "sub").mkdir()
    mounts.tmpfs(place / "a" / "sub")
    mounts.propagation(place / "a", "shared", recursive=True)
    assert mounts.at(place / "a" / "sub").propagation == "shared"
    (place / "a" / "foreign").mkdir()
    run("mount", "-t", "tmpfs", "foreign", place / "a" / "foreign")
    with pytest.raises(LabError, match=r"a/foreign \(tmpfs foreign\) is mounted below .* and is not the lab's"):
        mounts.propagation(place / "a", "private", recursive=True)
    run("umount", place / "a" / "foreign")


def test_an_unknown_kind_of_propagation_and_a_plain_directory_are_refused(place):
    with pytest.raises(LabError, match="no kind 'public'; remedy: one of shared, private, slave, unbindable"):
        mounts.propagation(place / "a", "public")
    with pytest.raises(LabError, match=f"{place}/a is not a mount point"):
        mounts.propagation(place / "a", "shared")


def test_detaching_a_recursive_copy_of_a_shared_tree_leaves_the_original(place):
    (place / "a" / "sub").mkdir()
    mounts.tmpfs(place / "a")
    (place / "a" / "sub").mkdir()
    mounts.tmpfs(place / "a" / "sub")
    mounts.propagation(place / "a", "shared", recursive=True)
    mounts.bind(place / "a", place / "b", recursive=True)
    mounts.unmount(place / "b")
    assert mounts.at_or_below(place / "b") == ()
    assert mounts.at(place / "a" / "sub") is not None
    run("mount", "--rbind", place / "a", place / "c")
    mount_ledger.detach_below(str(place / "c"))
    assert mounts.at_or_below(place / "c") == ()
    assert mounts.at(place / "a" / "sub") is not None


def test_a_mount_that_came_into_a_copy_by_propagation_does_not_hold_it(place):
    mounts.tmpfs(place / "a")
    mounts.propagation(place / "a", "shared")
    mounts.bind(place / "a", place / "b")
    (place / "a" / "late").mkdir()
    run("mount", "-t", "tmpfs", "foreign", place / "a" / "late")
    assert mounts.at(place / "b" / "late").source == "foreign"
    mounts.unmount(place / "b")
    assert mounts.at(place / "a" / "late").source == "foreign"
    run("umount", place / "a" / "late")


# trace


def test_the_traced_lines_typed_into_a_shell_give_the_same_mounts(place):
    with trace.collecting() as lines:
        mounts.mount("tmpfs", place / "a", "tmpfs", "nosuid,size=64k")
        mounts.propagation(place / "a", "shared")
        mounts.bind(place / "a", place / "b", readonly=True)
        mounts.remount(place / "a", "noexec,size=128k")
    made = described(place)
    ledger.undo()
    assert described(place) == []
    mount_ledger.claim(place)
    subprocess.run(["bash", "-e", "-c", lines.shell()], check=True)
    assert described(place) == made
    with trace.collecting() as away:
        mounts.unmount(place / "b")
        mounts.unmount(place / "a")
    assert away.shell() == f"umount {place}/b\numount {place}/a"


def described(place: Path):
    return [(m.mountpoint, m.fstype, m.source, set(m.options), set(m.super_options), m.propagation) for m in mounts.at_or_below(place)]


def test_each_call_is_traced_with_its_flags_by_name(place):
    kept = {"nosuid": "MS_NOSUID", "nodev": "MS_NODEV", "noexec": "MS_NOEXEC", "relatime": "MS_RELATIME", "noatime": "MS_NOATIME"}
    options = next(m.options for m in reversed(mounts.mountinfo()) if place.is_relative_to(m.mountpoint))
    with trace.collecting() as lines:
        mounts.bind(place / "a", place / "b", readonly=True)
    made, remounted = (operation.calls for operation in lines.operations)
    assert made == (f'mount("{place}/a", "{place}/b", NULL, MS_BIND, NULL)',)
    flags = re.fullmatch(rf'mount\(NULL, "{place}/b", NULL, (.*), NULL\)', *remounted)
    assert flags
    assert set(flags[1].split("|")) == {"MS_RDONLY", "MS_REMOUNT", "MS_BIND", *(kept[option] for option in options if option in kept)}


def test_holders_are_found_fast_enough_to_be_asked_at_an_error(place):
    mounts.tmpfs(place / "a")
    begin = time.monotonic()
    assert mounts.holders(mounts.at(place / "a")) == ()
    assert time.monotonic() - begin < 5
