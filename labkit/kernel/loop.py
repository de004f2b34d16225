"""Files as disks: a loop device is a block device whose blocks are those of a file. See: loop(4), losetup(8)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labkit import ledger
from labkit.errors import LabError, SyscallError

_KIND = "loop device"
_GET_FREE, _CONFIGURE, _CLR_FD = 0x4C82, 0x4C0A, 0x4C01  # LOOP_CTL_GET_FREE, LOOP_CONFIGURE, LOOP_CLR_FD of <linux/loop.h>
_AUTOCLEAR = 4  # LO_FLAGS_AUTOCLEAR: it goes with the last who has it open, or mounted
_CONFIG = "II QQQQQ IIII 64s64s32s QQ 64x"  # struct loop_config
_PATIENCE = 5.0


def claim(file: str | os.PathLike[str]) -> None:
    """Write down that a file will get a loop device: it is let go after all that is made from now on, which may have it mounted."""
    ledger.intend(_KIND, file=os.path.realpath(file))


@contextmanager
def attached(file: str | os.PathLike[str]) -> Iterator[str]:
    """Give a block a loop device for a file; it stays for as long as something is mounted from it, and no longer.

    Shell:
        losetup --find --show FILE

    Args:
        file: of a whole number of blocks of 512 bytes.

    Raises:
        SyscallError: ENOENT, there is no such file; EPERM without CAP_SYS_ADMIN.
    """
    claim(file)
    path = os.path.realpath(file)
    backing = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        name, device = _configured(backing, path)
    finally:
        os.close(backing)
    try:
        yield name
    finally:
        os.close(device)


def devices(file: str | os.PathLike[str], sys: Path = Path("/sys")) -> tuple[str, ...]:
    """Return the loop devices that have this file.

    Shell:
        losetup --associated FILE

    Args:
        file: its path.
        sys: where sysfs is mounted.
    """
    found = []
    for backing in sorted(sys.glob("block/loop*/loop/backing_file")):
        with suppress(OSError):
            if backing.read_text().rstrip("\n").removesuffix(" (deleted)") == os.fspath(file):
                found.append(f"/dev/{backing.parents[1].name}")
    return tuple(found)


def _configured(backing: int, path: str) -> tuple[str, int]:
    """Return a free device that was given the file, and its descriptor; another one where somebody else was faster."""
    while True:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            name = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
        finally:
            os.close(control)
        device = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _CONFIGURE, _config(backing, path))
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:
                raise SyscallError("ioctl", error.errno or 0, [name, "LOOP_CONFIGURE"], see="loop(4)") from error
        else:
            return name, device


def _config(backing: int, path: str) -> bytes:
    name = os.fsencode(path)[:63]
    return struct.pack(_CONFIG, backing, 0, 0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, name, b"", b"", 0, 0)


@ledger.undoes(_KIND)
def _undo(entry: ledger.Entry) -> None:
    """Let the devices of the file go, and wait until they have.

    Raises:
        LabError: something has one mounted.
    """
    deadline = time.monotonic() + _PATIENCE
    for name in devices(entry.key["file"]):
        with suppress(OSError):
            device = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CLR_FD)
            finally:
                os.close(device)
    while left := devices(entry.key["file"]):
        if time.monotonic() > deadline:
            raise LabError(f"{left[0]} is in use", cause="something is mounted from it", remedy=f"umount {left[0]}")
        time.sleep(0.05)
