"""What a process is to have: refused where it cannot be meant, written as a person types it, sent as the launcher reads it."""

import marshal
import shlex
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.kernel import syscalls
from labkit.kernel.processes import execution, launcher
from labkit.kernel.processes.plan import Plan, enter_file, variable_of

ARGV = ("bash", "-c", "date; sleep 1")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(()), "argv is empty"),
        (Plan(("a\0b",)), "NUL"),
        (Plan(ARGV, new=("network",)), "no kind of namespace is called 'network'"),
        (Plan(ARGV, new=("net",), enter={"net": "/proc/self/ns/net"}), "cannot be both new and entered"),
        (Plan(ARGV, root="/"), 'add "mount" to new'),
        (Plan(ARGV, mount_proc=True), 'add "mount" to new'),
        (Plan(ARGV, hostname="inside"), 'add "uts" to new'),
        (Plan(ARGV, uid_map=((0, 0, 1),)), 'add "user" to new'),
        (Plan(ARGV, boottime=5), 'add "time" to new'),
        (Plan(ARGV, new=("mount",), propagation="isolated"), "no propagation is called 'isolated'"),
        (Plan(ARGV, new=("mount",), root="/no/such/place"), "root /no/such/place is not a directory"),
        (Plan(ARGV, enter={"net": "/run/netns/no-such"}), "there is no net namespace at /run/netns/no-such"),
        (Plan(ARGV, new=("pid",), enter={"user": "/proc/self/ns/user"}), "cannot be made while a user namespace is entered"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(plan: Plan, words: str) -> None:
    with pytest.raises(LabError, match=words) as caught:
        plan.check()
    assert "\n" not in str(caught.value)


def test_a_plain_start_is_typed_as_a_job_whose_pid_is_kept() -> None:
    assert Plan(ARGV, name="clock").shell("> clock.log 2>&1") == "bash -c 'date; sleep 1' > clock.log 2>&1 & clock=$!"
    assert Plan(ARGV).shell() == "bash -c 'date; sleep 1' &"
    assert Plan(ARGV).shell(background=False) == "bash -c 'date; sleep 1'"


def test_new_namespaces_are_typed_in_the_order_of_the_table() -> None:
    line = Plan(ARGV, name="clock", new=("net", "uts", "mount")).shell()
    assert line == "unshare --mount --uts --net bash -c 'date; sleep 1' & clock=$!"


def test_a_new_pid_namespace_is_typed_with_the_pid_of_the_program_not_of_unshare() -> None:
    lines = Plan(ARGV, name="clock", new=("pid", "mount"), mount_proc=True).shell().splitlines()
    assert lines[0] == "unshare --mount --pid --fork --mount-proc bash -c 'date; sleep 1' & clock=$!"
    assert lines[1] == "until clock=$(pgrep -P $!); do sleep 0.1; done"


def test_root_alone_is_typed_with_the_option_of_unshare_and_other_maps_line_by_line() -> None:
    one = Plan(("id",), new=("user",), uid_map=((0, 1000, 1),), gid_map=((0, 1000, 1),))
    assert one.shell(background=False) == "setpriv --reuid=1000 --regid=1000 --clear-groups unshare --user --map-root-user id"
    same = Plan(("id",), new=("user",), uid_map=((0, 0, 1),), gid_map=((0, 0, 1),))
    assert same.shell(background=False) == "unshare --user --map-root-user id"
    many = Plan(("id",), name="x", new=("user", "uts"), uid_map=((0, 5, 2),), gid_map=((0, 6, 2),)).shell().splitlines()
    assert many[0] == "unshare --user sleep infinity & x_map=$!"
    assert r"printf '0 5 2\n' > /proc/$x_map/uid_map" in many
    assert "nsenter --user=/proc/$x_map/ns/user unshare --uts id & x=$!" in many


def test_entering_names_the_process_by_its_variable() -> None:
    class Clock:
        pid, name = 77, "my-clock"

    assert enter_file("net", Clock()) == ("/proc/77/ns/net", "/proc/$my_clock/ns/net")
    assert enter_file("mount", 77) == ("/proc/77/ns/mnt", "/proc/77/ns/mnt")
    assert enter_file("net", Path("/run/netns/a b")) == ("/run/netns/a b", "/run/netns/a b")
    plan = Plan(("id",), enter={"net": "/x"}, enter_words={"net": "/proc/$clock/ns/net"})
    assert plan.shell(background=False) == "nsenter --net=/proc/$clock/ns/net id"
    assert 'setns("/proc/$clock/ns/net", CLONE_NEWNET)' in plan.calls()


def test_a_root_a_host_name_and_cgroups_are_typed_in_the_order_in_which_they_happen() -> None:
    plan = Plan(("id",), new=("mount", "uts"), root="/t", mount_proc=True, hostname="in side", cgroups=("/sys/fs/cgroup/freezer/g",))
    line = plan.shell(background=False)
    joined, _, rest = line.partition(" exec ")
    assert joined == "( echo $BASHPID > /sys/fs/cgroup/freezer/g/cgroup.procs;"
    inner = shlex.split(rest.removesuffix(" )"))
    assert inner[:3] == ["unshare", "--mount", "--uts"]
    assert inner[-1] == "mount --rbind /t /t; mount -t proc proc /t/proc; hostname 'in side'; exec chroot /t id"


def test_a_start_in_cgroups_is_typed_as_a_subshell_that_becomes_the_program() -> None:
    plan = Plan(ARGV, name="hog", cgroups=("/c/memory/g", "/c/pids/g"))
    assert plan.shell("> hog.log 2>&1") == (
        "( echo $BASHPID > /c/memory/g/cgroup.procs; echo $BASHPID > /c/pids/g/cgroup.procs; exec bash -c 'date; sleep 1' )"
        " > hog.log 2>&1 & hog=$!"
    )


def test_a_host_name_comes_first_in_the_script_itself() -> None:
    plan = Plan(ARGV, name="named", new=("uts",), hostname="inside")
    assert plan.shell() == "unshare --uts bash -c 'hostname inside; date; sleep 1' & named=$!"
    other = Plan(("sleep", "9"), new=("uts",), hostname="inside")
    assert other.shell(background=False) == "unshare --uts bash -c 'hostname inside; exec sleep 9'"


def test_a_name_becomes_a_shell_variable() -> None:
    assert [variable_of(name) for name in ("clock", "my-clock.2", "2nd", "")] == ["clock", "my_clock_2", "_2nd", ""]


def test_the_mounts_come_private_first_then_root_binds_and_proc() -> None:
    plan = Plan(ARGV, new=("mount",), root="/t", binds=(("/a", "/data"),), mount_proc=True)
    assert [(source, target) for source, target, *_ in plan.mounts()] == [(None, "/"), ("/t", "/t"), ("/a", "/t/data"), ("proc", "/t/proc")]
    assert plan.mounts()[0][3] == syscalls.MS_REC | syscalls.MS_PRIVATE
    assert Plan(ARGV, new=("mount",), propagation="unchanged").mounts() == []
    assert 'mount(NULL, "/", NULL, MS_REC|MS_PRIVATE, NULL)' in plan.calls()
    assert plan.calls()[-4:-1] == ('chdir("/t")', 'pivot_root(".", ".")', 'umount2(".", MNT_DETACH)')


def test_a_cgroup_namespace_and_clock_offsets_are_left_to_the_child() -> None:
    request = Plan(ARGV, new=("cgroup", "uts", "time"), boottime=5).request()
    assert (request["flags"], request["late"]) == (syscalls.CLONE_NEWUTS, syscalls.CLONE_NEWCGROUP | syscalls.CLONE_NEWTIME)
    assert request["time_offsets"] == "monotonic 0 0\nboottime 5 0\n"
    assert Plan(ARGV, new=("time",)).request()["flags"] == syscalls.CLONE_NEWTIME


def test_a_request_survives_the_socket_and_becomes_the_steps_of_the_child() -> None:
    plan = Plan(
        ("/bin/x\udcff", "é"), new=("user", "mount"), root="/tmp", uid_map=((0, 1000, 1),), gid_map=((0, 1000, 1),), cwd="/w", tty=True
    )
    request = marshal.loads(marshal.dumps({**plan.request(), "enter": [[syscalls.CLONE_NEWNET, 4]], "pid_namespace": None}))
    steps = launcher._steps(request, [11, 12, 13, 14, 15], 9, waits=True)
    names = [step.syscall for step in steps]
    first = ["prctl", "poll", "read", "setns", "mount", "mount", "chdir", "pivot_root", "umount2", "chdir", "chdir"]
    assert names == [*first, "setgroups", "setresgid", "setresuid", "prctl", "poll", "setsid", "dup2", "dup2", "dup2", "ioctl"]
    assert steps[3].arguments == (15, syscalls.CLONE_NEWNET)
    assert [step.arguments for step in steps if step.syscall == "dup2"] == [(12, 0), (13, 1), (14, 2)]
    assert launcher.Program(request["argv"], {"PATH": "/a"}).files == [b"/bin/x\xff"]
    assert launcher.Program(["ls"], {"PATH": "/a:/b"}).files == [b"/a/ls", b"/b/ls"]


def test_the_interpreter_of_a_file_is_read_from_its_head(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"#! /usr/bin/env python3\n")
    assert execution.interpreter_of(str(script)) == ("script interpreter", "/usr/bin/env")
    kind, loader = execution.interpreter_of("/bin/true")
    assert kind == "loader"
    assert Path(loader).exists()
    script.write_bytes(b"\x7fELF\x02\x01")  # torn
    assert execution.interpreter_of(str(script)) == ("", "")
    assert execution.interpreter_of(str(tmp_path / "none")) == ("", "")


def test_a_cause_is_named_only_where_it_was_found(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    assert execution.why_not(str(link), 2) == f"{link} is a symbolic link to nowhere, which is not there"
    assert execution.why_not(str(tmp_path / "none"), 2) is None
    assert execution.why_not("/bin/true", 12) is None
