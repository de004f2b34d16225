"""The texts of errors: one line, the thing, the cause if measured, the remedy."""

import errno

from labkit.errors import CheckFailed, CommandError, LabError, SyscallError, UnsupportedError


def test_an_error_names_the_thing_the_cause_and_the_remedy_in_one_line():
    error = LabError("cgroup demo: not ours", cause="made by another", remedy="choose another name")
    assert str(error) == "cgroup demo: not ours; cause: made by another; remedy: choose another name"


def test_a_cause_that_was_not_measured_is_not_mentioned():
    assert str(LabError("cgroup demo: not ours")) == "cgroup demo: not ours"


def test_a_system_call_error_shows_the_call_and_is_the_os_error_that_the_kernel_gave():
    error = SyscallError("mount", errno.EBUSY, ['"a"', '"/b"', "MS_BIND"], cause="held by 12 (bash)")
    assert str(error) == 'mount("a", "/b", MS_BIND): EBUSY (Device or resource busy); cause: held by 12 (bash)'
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror, error.see) == (errno.EBUSY, "Device or resource busy", "mount(2)")


def test_an_errno_without_a_name_is_shown_as_its_number():
    assert "fsopen(): 9999 (" in str(SyscallError("fsopen", 9999))


def test_a_failed_command_shows_a_line_that_can_be_typed_and_the_end_of_what_it_said():
    error = CommandError(["ip", "link", "add", "a b"], 2, "1\n2\n3\n4\n", remedy="choose another name")
    assert str(error) == "ip link add 'a b': exit status 2: 2 | 3 | 4; remedy: choose another name"


def test_a_command_ended_by_a_signal_says_which():
    assert str(CommandError(["true"], -9)) == "true: signal 9"


def test_a_script_of_many_lines_is_named_in_one():
    error = CommandError(["bash", "-c", "set -e\nfalse\n"], 1)
    assert "\n" not in str(error)
    assert error.argv[2] == "set -e\nfalse\n"


def test_what_is_not_supported_says_what_is_needed_and_what_was_found():
    error = UnsupportedError("the memory controller", "cpu, pids", remedy="boot with cgroup_enable=memory")
    assert str(error) == "needs the memory controller; found cpu, pids; remedy: boot with cgroup_enable=memory"


def test_a_check_that_failed_has_the_expected_and_the_measured():
    error = CheckFailed("FROZEN", "THAWED", cause="freezer.state was never written")
    assert str(error) == "expected FROZEN; measured THAWED; cause: freezer.state was never written"
