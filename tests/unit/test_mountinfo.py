"""mountinfo as several systems write it, parsed whole."""

import errno

import pytest

from labkit.errors import SyscallError
from labkit.kernel import mounts
from labkit.kernel.mounts.table import at, at_or_below, children, mountinfo
from labkit.kernel.state import MountState

SYSTEMD = r"""
22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
23 28 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
26 23 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard,errors=remount-ro
31 22 0:29 / /proc/sys/fs/binfmt_misc rw,relatime shared:13 - autofs systemd-1 rw,fd=29,pgrp=1,timeout=0,direct
90 28 0:4 net:[4026532290] /run/netns/namespace1 rw shared:55 - nsfs nsfs rw
"""
CONTAINER = r"""
611 480 0:52 / / rw,relatime master:243 - overlay overlay rw,lowerdir=/v/AB:/v/CD,upperdir=/u,workdir=/w
612 611 0:55 / /proc rw,nosuid - proc proc rw
620 611 254:1 /var/lib/docker/hosts /etc/hosts rw,relatime shared:4 master:1 propagate_from:2 - ext4 /dev/vda1 rw
621 611 0:60 / /secret rw unbindable - tmpfs tmpfs rw,size=64k
"""
ODD = r"""
70 28 0:41 / /mnt/with\040space\011tab\134back\012line rw,relatime - tmpfs my\040source rw
71 28 0:42 /sub\040dir//deleted /mnt/gone rw - ext4 /dev/sda1 rw
72 28 0:43 / /mnt/anonymous rw,relatime - tmpfs  rw,size=4k
73 28 0:44 / /mnt/merged rw,relatime - overlay overlay rw,lowerdir=/a\134:b:/c\040d,upperdir=/e\054f,workdir=/w
74 28 0:45 / /mnt/dash rw shared:3 - - - rw
75 28 0:39 / /root/union rw,nosuid,nodev,relatime - fuse.unionfs unionfs rw,user_id=0,group_id=0,default_permissions
76 28 0:46 / /mnt/caf\303\251\043 rw - tmpfs tmpfs rw
"""


def recorded(tmp_path, text, pid="self"):
    (tmp_path / pid).mkdir(parents=True, exist_ok=True)
    (tmp_path / pid / "mountinfo").write_text(text.lstrip())
    return tmp_path


def by_mountpoint(proc):
    return {mount.mountpoint: mount for mount in mountinfo(proc=proc)}


def test_every_field_of_a_line_is_kept(tmp_path):
    root = by_mountpoint(recorded(tmp_path, SYSTEMD))["/"]
    assert root == MountState(
        id=28,
        parent=1,
        device="254:1",
        root="/",
        mountpoint="/",
        options=("rw", "relatime"),
        optional=("shared:1",),
        fstype="ext4",
        source="/dev/vda1",
        super_options=("rw", "discard", "errors=remount-ro"),
    )


def test_the_root_of_a_namespace_file_is_the_namespace(tmp_path):
    assert by_mountpoint(recorded(tmp_path, SYSTEMD))["/run/netns/namespace1"].root == "net:[4026532290]"


def test_all_optional_fields_are_kept_and_say_the_propagation(tmp_path):
    mounts_of = by_mountpoint(recorded(tmp_path, CONTAINER))
    assert mounts_of["/etc/hosts"].optional == ("shared:4", "master:1", "propagate_from:2")
    assert {path: mount.propagation for path, mount in mounts_of.items()} == {
        "/": "slave",
        "/proc": "private",
        "/etc/hosts": "slave,shared",
        "/secret": "unbindable",
    }


def test_octal_escapes_are_decoded_in_every_field(tmp_path):
    mounts_of = by_mountpoint(recorded(tmp_path, ODD))
    assert mounts_of["/mnt/with space\ttab\\back\nline"].source == "my source"
    assert mounts_of["/mnt/gone"].root == "/sub dir//deleted"
    assert "/mnt/café#" in mounts_of


def test_a_comma_inside_a_value_does_not_split_the_options(tmp_path):
    merged = by_mountpoint(recorded(tmp_path, ODD))["/mnt/merged"]
    assert merged.super_options == ("rw", "lowerdir=/a\\:b:/c d", "upperdir=/e,f", "workdir=/w")


def test_an_empty_source_is_an_empty_word(tmp_path):
    anonymous = by_mountpoint(recorded(tmp_path, ODD))["/mnt/anonymous"]
    assert (anonymous.fstype, anonymous.source, anonymous.super_options) == ("tmpfs", "", ("rw", "size=4k"))


def test_a_type_or_source_that_is_a_dash_is_not_the_separator(tmp_path):
    dash = by_mountpoint(recorded(tmp_path, ODD))["/mnt/dash"]
    assert (dash.optional, dash.fstype, dash.source) == (("shared:3",), "-", "-")


def test_another_process_is_read_by_its_pid(tmp_path):
    assert len(mountinfo(17, proc=recorded(tmp_path, CONTAINER, pid="17"))) == 4


def test_a_process_that_is_gone_is_enoent(tmp_path):
    with pytest.raises(SyscallError, match=r'^open\(".*/17/mountinfo", O_RDONLY\): ENOENT') as caught:
        mountinfo(17, proc=tmp_path)
    assert caught.value.errno == errno.ENOENT


def test_the_topmost_of_stacked_mounts_is_found(tmp_path):
    stacked = "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /m rw - tmpfs low rw\n3 2 0:3 / /m rw - tmpfs high rw\n"
    proc = recorded(tmp_path, stacked)
    assert at("/m", proc).source == "high"
    assert at("/nothing", proc) is None


def test_below_a_directory_is_not_beside_it(tmp_path):
    text = "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /a rw - tmpfs x rw\n3 2 0:3 / /a/b rw - tmpfs x rw\n4 1 0:4 / /ab rw - tmpfs x rw\n"
    proc = recorded(tmp_path, text)
    assert [mount.mountpoint for mount in at_or_below("/a", proc)] == ["/a", "/a/b"]
    assert [mount.mountpoint for mount in at_or_below("/", proc)] == ["/", "/a", "/a/b", "/ab"]
    assert [mount.mountpoint for mount in children(at("/a", proc), proc)] == ["/a/b"]


def test_this_machine_s_own_mountinfo_is_parsed_whole():
    with open("/proc/self/mountinfo") as file:
        assert len(mountinfo()) == len(file.readlines())


def test_a_mount_is_described_in_a_few_words(tmp_path):
    assert mounts.describe(by_mountpoint(recorded(tmp_path, ODD))["/root/union"]) == "/root/union (fuse.unionfs unionfs)"
