"""Options of mount(8) taken apart as mount(8) does."""

import pytest

from labkit.kernel.mounts.options import data_of, flags_of, kept_flags
from labkit.kernel.state import MountState
from labkit.kernel.syscalls import flag_names


@pytest.mark.parametrize(
    ("options", "flags", "data"),
    [
        ("", "0", None),
        ("ro,size=16m,nosuid", "MS_RDONLY|MS_NOSUID", "size=16m"),
        ("ro,rw", "0", None),
        ("rw,ro", "MS_RDONLY", None),
        ("nodev,noexec,dev", "MS_NOEXEC", None),
        ("relatime,noatime", "MS_NOATIME", None),
        ("noatime,strictatime,lazytime", "MS_STRICTATIME|MS_LAZYTIME", None),
        ("noatime,atime", "0", None),
        ("lowerdir=/a:/b,mode=755", "0", "lowerdir=/a:/b,mode=755"),
    ],
)
def test_flags_and_data_are_told_apart(options, flags, data):
    words = [word for word in options.split(",") if word]
    assert (flag_names(flags_of(words), "MS_"), data_of(words)) == (flags, data)


def test_a_change_keeps_what_it_does_not_name():
    mounted = MountState(1, 0, "0:1", "/", "/m", ("rw", "nosuid", "relatime"), (), "tmpfs", "x", ())
    assert kept_flags(mounted, ["ro"]) == ["ro", "nosuid", "relatime"]
    assert kept_flags(mounted, ["suid", "noatime"]) == ["rw", "noatime"]
