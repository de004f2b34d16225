"""What a failed system call says: its name, its arguments with flags by their names, its errno."""

import errno
import os

import pytest

from labkit.errors import SyscallError
from labkit.kernel import syscalls


def test_flags_are_written_by_their_names():
    assert syscalls.flag_names(syscalls.MS_BIND | syscalls.MS_REC, "MS_") == "MS_BIND|MS_REC"
    assert syscalls.flag_names(syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW, "umount2") == "MNT_DETACH|UMOUNT_NOFOLLOW"
    assert syscalls.flag_names(0, "MS_") == "0"


def test_a_flag_without_a_name_is_written_as_a_number():
    assert syscalls.flag_names(syscalls.CLONE_NEWNET | 0x1, "CLONE_NEW") == "CLONE_NEWNET|0x1"


def test_a_prctl_option_is_a_number_not_a_set_of_flags():
    assert syscalls.flag_names(syscalls.PR_SET_NO_NEW_PRIVS, "PR_") == "PR_SET_NO_NEW_PRIVS"
    assert syscalls.flag_names(999, "PR_") == "999"


def test_mount_of_a_file_system_that_is_not_there_names_call_flags_and_errno(tmp_path):
    with pytest.raises(SyscallError) as caught:
        syscalls.mount("none", tmp_path / "missing", "no-such-fs", syscalls.MS_RDONLY | syscalls.MS_NOSUID, "size=1")
    error = caught.value
    assert error.errno in (errno.ENOENT, errno.EPERM, errno.ENODEV)
    assert str(error).startswith(f'mount("none", "{tmp_path}/missing", "no-such-fs", MS_RDONLY|MS_NOSUID, "size=1"): E')
    assert error.see == "mount(2)"


def test_null_is_written_as_null(tmp_path):
    with pytest.raises(SyscallError, match=r'^mount\(NULL, ".*", NULL, MS_REC\|MS_PRIVATE, NULL\): '):
        syscalls.mount(None, tmp_path / "missing", None, syscalls.MS_REC | syscalls.MS_PRIVATE)


def test_umount_of_a_path_that_is_not_there(tmp_path):
    with pytest.raises(SyscallError) as caught:
        syscalls.umount2(tmp_path / "missing", syscalls.UMOUNT_NOFOLLOW)
    assert "UMOUNT_NOFOLLOW" in str(caught.value)
    assert caught.value.syscall == "umount2"


def test_setns_names_the_file_behind_the_descriptor(tmp_path):
    (tmp_path / "plain").touch()
    fd = os.open(tmp_path / "plain", os.O_RDONLY)
    try:
        with pytest.raises(SyscallError, match=r"^setns\(.*/plain, CLONE_NEWNET\): EINVAL"):
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
    finally:
        os.close(fd)


def test_a_closed_descriptor_is_ebadf():
    with pytest.raises(SyscallError) as caught:
        syscalls.setns(987654)
    assert caught.value.errno == errno.EBADF


def test_unshare_with_impossible_flags_is_einval():
    with pytest.raises(SyscallError, match=r"^unshare\(0x1\): EINVAL"):
        syscalls.unshare(0x1)


def test_pivot_root_names_both_directories(tmp_path):
    with pytest.raises(SyscallError, match=r'^pivot_root\(".*/new", ".*/old"\): '):
        syscalls.pivot_root(tmp_path / "new", tmp_path / "old")


def test_prctl_reads_and_sets():
    pr_get_name_of_nothing = 9999
    with pytest.raises(SyscallError, match=r"^prctl\(9999, 0\): EINVAL"):
        syscalls.prctl(pr_get_name_of_nothing)
    assert syscalls.prctl(39) in (0, 1)  # PR_GET_NO_NEW_PRIVS


def test_a_file_handle_names_the_same_file_under_another_name(tmp_path):
    (tmp_path / "one").write_text("x")
    (tmp_path / "two").write_text("x")
    os.link(tmp_path / "one", tmp_path / "link")
    one = syscalls.name_to_handle_at(tmp_path / "one")
    assert one == syscalls.name_to_handle_at(tmp_path / "link")
    assert one != syscalls.name_to_handle_at(tmp_path / "two")


def test_a_file_system_without_handles_says_so():
    with pytest.raises(SyscallError) as caught:
        syscalls.name_to_handle_at("/proc/self/status")
    assert caught.value.errno == errno.EOPNOTSUPP
