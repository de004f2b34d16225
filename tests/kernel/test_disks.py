"""Files as disks, what they have in use, and whose blocks a file is made of; a shared mount, and where a mount of elsewhere lies."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from labkit import ledger
from labkit.errors import LabError, SyscallError
from labkit.kernel import disks, extents, loop, mounts, processes, shared
from labkit.kernel.mounts.origin import origin, upperdir

SIZE = 128 * 2**20
FILE = 4 * 2**20


@pytest.fixture
def place(tmp_path: Path):
    """A directory for a disk, and at the end everything that the ledger holds undone, and no loop device of ours left."""
    (tmp_path / "root").mkdir()
    yield tmp_path
    ledger.undo()
    assert ledger.live() == []
    assert loop.devices(tmp_path / "disk") == ()
    assert mounts.at_or_below(tmp_path) == ()


@pytest.fixture
def root(place: Path) -> Path:
    """A btrfs in a file."""
    return Path(disks.disk(place / "disk", place / "root", "btrfs", SIZE).mountpoint)


def test_a_disk_is_mounted_once_and_its_device_goes_with_the_mount(place: Path):
    made = disks.disk(place / "disk", place / "root", "ext4", SIZE)
    assert (made.fstype, made.source) == ("ext4", loop.devices(place / "disk")[0])
    assert disks.disk(place / "disk", place / "root", "ext4", SIZE) == made
    mounts.unmount(place / "root")
    assert loop.devices(place / "disk") == (), "it had nobody else"


def test_a_loop_device_that_nothing_is_mounted_from_goes_with_the_block(place: Path):
    (place / "disk").write_bytes(bytes(2**20))
    with loop.attached(place / "disk") as name:
        assert loop.devices(place / "disk") == (name,)
    assert loop.devices(place / "disk") == ()


def test_a_loop_device_of_a_file_that_is_not_there_is_refused(place: Path):
    with pytest.raises(OSError, match="disk") as caught, loop.attached(place / "disk"):
        pass
    assert caught.value.errno == errno.ENOENT


def test_the_undo_says_who_keeps_a_device(place: Path):
    with loop.attached(_ext4(place / "disk")) as name:
        subprocess.run(["mount", name, place / "root"], check=True)
    with pytest.raises(ExceptionGroup) as caught:
        ledger.undo()
    assert caught.value.exceptions[0].cause == "something is mounted from it"
    subprocess.run(["umount", place / "root"], check=True)


def _ext4(file: Path) -> Path:
    with file.open("wb") as image:
        image.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", file], check=True)
    return file


def test_what_is_in_use_grows_by_what_was_written_and_by_nothing_for_a_file_that_shares_its_blocks(root: Path):
    before = disks.used(root)
    (root / "one").write_bytes(os.urandom(FILE))
    written = disks.used(root)
    assert FILE * 0.9 < written - before < FILE * 1.3
    subprocess.run(["cp", "--reflink=always", root / "one", root / "two"], check=True)
    assert disks.used(root) - written < FILE * 0.2


def test_extents_are_shared_until_they_are_written(root: Path):
    (root / "one").write_bytes(os.urandom(FILE))
    assert extents.shared(root / "one") == 0.0
    subprocess.run(["cp", "--reflink=always", root / "one", root / "two"], check=True)
    assert extents.shared(root / "one") == extents.shared(root / "two") == 1.0
    with (root / "two").open("r+b") as file:
        file.write(bytes(4096))
    assert 0.9 < extents.shared(root / "two") < 1.0
    (root / "none").write_bytes(b"")
    assert extents.shared(root / "none") == 0.0


def test_a_file_in_many_pieces_is_read_to_its_end(root: Path):
    with (root / "pieces").open("wb") as file:
        for at in range(600):
            file.seek(at * 2 * 4096)
            file.write(os.urandom(4096))
    assert extents.shared(root / "pieces") == 0.0
    assert len(list(extents._extents(root / "pieces"))) == 600


def test_a_file_system_that_the_kernel_has_not_is_refused_and_nothing_is_left(place: Path):
    with pytest.raises(SyscallError, match="ENODEV"), loop.attached(_ext4(place / "disk")) as name:
        mounts.mount(name, place / "root", "nosuchfs")


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch):
    """A lab of which nothing is left at the end."""
    ledger.own("0.1")
    yield ledger.state() / "labs/0.1"
    ledger.undo("0.1")
    ledger.own("")


def test_what_is_mounted_in_a_shared_mount_reaches_a_namespace_that_took_its_copy_before(lab: Path):
    shared.claim("mnt")
    shared.claim("mnt")
    child = processes.start(["sleep", "1000"], new=["mount"], propagation="slave")
    try:
        (lab / "mnt/disk").mkdir()
        mounts.tmpfs(lab / "mnt/disk")
        seen = mounts.at(lab / "mnt/disk", among=mounts.mountinfo(child.pid))
        assert seen is not None
        assert any(field.startswith("master:") for field in seen.optional)
    finally:
        child.kill()


def test_where_a_mount_of_another_namespace_lies_is_told_by_device_and_root(lab: Path):
    shared.claim("mnt")
    for name in ("shown", "at"):
        (lab / "mnt" / name).mkdir()
    mount = mounts.bind(lab / "mnt/shown", lab / "mnt/at")
    here = [each for each in mounts.mountinfo() if each.id != mount.id]
    assert origin(mount, here) == str(lab / "mnt/shown")
    assert origin(mount, ()) is None
    assert upperdir(mount) is None


def test_an_engine_of_a_driver_that_there_is_not_is_refused():
    from labkit.runtimes import docker_storage

    with pytest.raises(LabError, match="aufs"):
        docker_storage.claim("aufs")
