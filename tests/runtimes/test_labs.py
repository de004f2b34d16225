"""What a lab does with root file systems and runtimes, as root and as a user, through its verbs and typed by hand."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import ledger, runtimes
from labkit.course.lab import Lab
from labkit.errors import LabError, SyscallError
from labkit.host.account import STUDENT
from labkit.kernel.processes import ending
from labkit.runtimes import ours, rootfs

BREAK_OUT = """perl -e 'mkdir "x"; chroot "x"; chdir ".." for 1 .. 64; chroot "."; exec @ARGV or die "$!\\n"'"""


def module() -> types.ModuleType:
    made = types.ModuleType("trial")
    made.TITLE, made.AIMS, made.NEEDS, made.CHECKPOINTS = "Containers", (), (), ()
    made.CLAIMS = (("lxc", "labkit-priv"),)
    return made


@pytest.fixture
def lab() -> Iterator[Lab]:
    one = Lab("containers", module())
    one.open()
    yield one
    one.close()
    ledger.own("")
    assert not one.directory.exists()


@pytest.fixture
def debian(lab: Lab, own_state: Path) -> Path:
    """Keep one unpacked Debian for all: it takes seconds."""
    ledger.own("packed")
    place = rootfs.unpack(own_state / "debian")
    ledger.own(lab.id)
    return place


@pytest.fixture(scope="module", autouse=True)
def nothing_packed_left() -> Iterator[None]:
    yield
    ledger.undo("packed")


def test_a_root_file_system_is_unpacked_once_and_a_half_one_anew(lab: Lab):
    place = lab.rootfs("box", "busybox")
    note = place / "etc/note"
    note.write_text("mine")
    assert lab.rootfs("box", "busybox") == place
    assert note.exists()
    ledger.gone(ledger.find("rootfs", path=str(place)))  # as if the unpacking had been killed
    assert lab.rootfs("box", "busybox") == place
    assert not note.exists()


def test_the_debian_is_another_one_than_the_machine_s(debian: Path):
    assert (debian / "usr/lib/os-release").read_text() != Path("/etc/os-release").read_text()


def test_what_is_not_the_labs_is_not_unpacked_over(lab: Lab, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="was not made by this lab"):
        rootfs.unpack(tmp_path, "busybox")
    with pytest.raises(LabError, match="there is no root file system 'ubuntu'; remedy: one of debian, busybox"):
        lab.rootfs("other", "ubuntu")
    assert (tmp_path / "file").exists()


def test_files_of_an_unprivileged_runtime_belong_to_the_ids_that_it_maps(lab: Lab):
    place = lab.rootfs("shifted", "busybox", runtime="lxc-unprivileged")
    first = runtimes.find("lxc-unprivileged").id_map()[0][1]
    assert {os.lstat(path).st_uid for path in (place, place / "bin/sh", place / "etc")} == {first}


def test_an_empty_root_has_no_loader_for_ls_and_the_cause_says_so(lab: Lab):
    lab.run("mkdir -p empty/bin; cp /bin/ls empty/bin")
    lab.run("chroot empty ls", fails="No such file")
    with pytest.raises(SyscallError, match=r"ENOENT.*cause: /bin/ls is there, its loader /lib.*ld-linux.* is not"):
        lab.spawn(["/bin/ls", "/"], "ls", chroot=lab.path("empty"))
    lab.run("ldd /bin/ls | grep -o '/[^ ]*' | xargs -I{} cp --parents {} empty; chroot empty ls / > listed")
    assert lab.path("listed").read_text().split() == ["bin", "lib", "lib64"]


def test_root_breaks_out_of_a_chroot_and_not_out_of_a_pivoted_root(debian: Path, lab: Lab, capsys: pytest.CaptureFixture[str]):
    canary = lab.path("canary")
    canary.write_text("sings")
    try:
        lab.run(f"chroot {debian} cat {canary}", fails="No such file")
        lab.run(f"chroot {debian} {BREAK_OUT} cat {canary} > out")
        assert lab.path("out").read_text() == "sings"
        pivot = f"mount --bind {debian} {debian}; cd {debian}; mount -t proc proc proc; mkdir -p old; pivot_root . old; umount -l old"
        lab.run(f"unshare --mount bash -e -c '{pivot}; exec \"$@\"' - {BREAK_OUT} cat {canary}", fails=f"{canary}: No such file")
        assert canary.read_text() == "sings"
        process = lab.spawn(["perl", "-e", BREAK_OUT[9:-1], "cat", str(canary)], "escape", new=["mount"], root=debian)
        assert process.wait(10) != 0
    finally:
        for name in ("x", "old"):
            shutil.rmtree(debian / name, ignore_errors=True)


def test_a_system_boots_on_a_terminal_to_its_login_prompt_and_lets_root_in(debian: Path, lab: Lab):
    terminal = lab.boot(debian, "booted")
    assert lab.boot(debian, "booted") is terminal
    container = runtimes.locate("nspawn:booted")
    assert Path(f"/proc/{container.pid}/comm").read_text() == "systemd\n"
    assert lab.runtime("nspawn").exec("booted", ["systemctl", "is-active", "multi-user.target"]).stdout == "active\n"
    terminal.send("root")
    terminal.expect("# $", timeout=60)
    terminal.send("cat /proc/1/comm; hostname")
    assert "systemd" in terminal.expect("booted")
    init = ending.known(container.pid)
    lab.runtime("nspawn").stop("booted", 30)
    assert not ours.lives(init)
    lab.runtime("nspawn").remove("booted")


def test_a_system_that_does_not_come_up_is_told_with_its_last_words_and_leaves_nothing(lab: Lab):
    broken = lab.rootfs("broken", "busybox")
    (broken / "sbin/init").unlink()
    (broken / "sbin/systemd").write_text("#!/bin/sh\necho no such luck\nexit 7\n")
    (broken / "sbin/systemd").chmod(0o755)
    (broken / "sbin/init").symlink_to("systemd")
    with pytest.raises(LabError, match=r"broken ended|luck"):
        lab.runtime("nspawn").boot(broken, "broken")
    assert [one for one in runtimes.containers() if one.name == "broken"] == []


def test_what_root_makes_with_lxc_by_hand_goes_with_the_lab(lab: Lab):
    lines = """
        printf 'lxc.net.0.type = empty\\n' > lxc.conf
        lxc-create -n labkit-priv -f lxc.conf -t busybox > created
        lxc-start -n labkit-priv
        lxc-info -n labkit-priv -pH > pid
    """
    try:
        lab.run(textwrap.dedent(lines))
        init = ending.known(int(lab.path("pid").read_text()))
        assert runtimes.locate("lxc:labkit-priv").pid == init.pid
        for entry in reversed(ledger.live(lab.id)):
            if "labkit-priv" in str(entry.key):
                ledger.undo_one(entry)
        assert not ours.lives(init)
        assert not Path("/var/lib/lxc/labkit-priv").exists()
    finally:
        subprocess.run(["lxc-destroy", "-f", "-n", "labkit-priv"], check=False, capture_output=True)


def test_a_user_makes_runs_and_removes_a_container_without_root(lab: Lab):
    lines = """
        mkdir -p ~/.config/lxc
        { echo lxc.net.0.type = empty; echo lxc.apparmor.profile = unconfined
          awk -F: -v u=$USER '$1 == u { print "lxc.idmap = u 0", $2, $3 }' /etc/subuid
          awk -F: -v u=$USER '$1 == u { print "lxc.idmap = g 0", $2, $3 }' /etc/subgid; } > ~/.config/lxc/default.conf
        lxc-create -n unpriv -t local -- --metadata $ROOTFS/metadata.tar.xz --fstree $ROOTFS/debian.tar.xz
        lxc-start -n unpriv
        lxc-attach -n unpriv -- id -u > ~/inside
        lxc-info -n unpriv -pH > ~/pid
    """
    lab.run(textwrap.dedent(lines), user=STUDENT)
    home = lab.path("home")
    pid = int((home / "pid").read_text())
    assert (home / "inside").read_text() == "0\n"
    assert os.stat(f"/proc/{pid}").st_uid == runtimes.find("lxc-unprivileged").id_map()[0][1]
    assert runtimes.locate("lxc-unprivileged:unpriv").pid == pid
    lab.run("lxc-stop -n unpriv; lxc-destroy -n unpriv; lxc-ls > ~/left", user=STUDENT)
    assert (home / "left").read_text() == ""


SMALL = """
    mkdir -p ~/.config/lxc
    { echo lxc.net.0.type = empty; echo lxc.apparmor.profile = unconfined
      awk -F: -v u=$USER '$1 == u { print "lxc.idmap = u 0", $2, $3 }' /etc/subuid
      awk -F: -v u=$USER '$1 == u { print "lxc.idmap = g 0", $2, $3 }' /etc/subgid; } > ~/.config/lxc/default.conf
    lxc-create -n small -t busybox > ~/created
    lxc-start -n small -d
"""


def test_a_user_goes_into_a_container_by_a_terminal(lab: Lab):
    lab.run(textwrap.dedent(SMALL), user=STUDENT)
    with lab.terminal("lxc-attach -n small", "visit", STUDENT) as visit:
        assert visit.run("id -u; hostname").split() == ["0", "small"]
    assert lab.path("home").owner() == STUDENT


def test_root_types_the_way_into_the_session_of_a_user(lab: Lab):
    session = lab.session()
    lab.run("$LAB/labkit-student bash -c 'id -un; echo $HOME; cat /proc/self/cgroup' > said; id -un > me")
    user, home, *cgroups = lab.path("said").read_text().splitlines()
    assert (user, home) == (STUDENT, str(session.home))
    assert any(f"/{STUDENT}.slice/" in line for line in cgroups)
    assert lab.path("me").read_text() == "root\n"


def test_what_keeps_a_user_from_running_containers_in_a_lab_is_measured_there(lab: Lab):
    lab.run("true", user=STUDENT)
    assert "red" not in lab.doctor().text
    lab.path("home").chmod(0o700)
    assert "$LAB/home has no x for others" in lab.doctor().text
    lab.path("home").chmod(0o711)
    for cgroup in lab.session().cgroups:
        os.chown(cgroup, 0, 0)
    assert "is not delegated" in " ".join(lab.doctor().text.split())


NOTEBOOK = """
    import os, types
    from labkit.course.lab import Lab
    from labkit.host.account import STUDENT
    module = types.ModuleType("trial")
    module.TITLE, module.AIMS, module.NEEDS, module.CHECKPOINTS, module.CLAIMS = "t", (), (), (), (("lxc", "labkit-priv"),)
    lab = Lab("killed", module)
    lab.open()
    lab.rootfs("root", "busybox")
    lab.runtime("chroot").start(lab.path("root"), ["sleep", "300"], "one")
    lab.runtime("nspawn").start(lab.path("root"), ["sleep", "300"], "two")
    lab.runtime("lxc").start(lab.path("root"), ["sleep", "300"], "three")
    lab.rootfs("shifted", "busybox", runtime="lxc-unprivileged")
    lab.runtime("lxc-unprivileged").start(lab.path("shifted"), ["sleep", "300"], "four")
    lab.run("printf 'lxc.net.0.type = empty\\\\n' > c; lxc-create -n labkit-priv -f c -t busybox; lxc-start -n labkit-priv")
    lab.run("echo $HOME > ~/home", user=STUDENT)
    os.kill(os.getpid(), 9)
"""


def test_the_notebook_is_killed_with_containers_of_every_kind_and_clean_leaves_nothing():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(NOTEBOOK)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    cleaned = subprocess.run([sys.executable, "-m", "labkit", "clean", "killed"], capture_output=True, text=True)
    if cleaned.returncode:  # the command knows the labs of the course only
        ledger.undo("killed")
    assert ledger.live("killed") == []
    assert not (ledger.state() / "labs/killed").exists()
    assert not Path("/var/lib/lxc/labkit-priv").exists()
    left = subprocess.run(["pgrep", "-af", f"{ledger.state()}|labkit-priv"], capture_output=True, text=True).stdout
    assert left == ""
