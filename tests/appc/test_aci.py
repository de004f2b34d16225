"""Image files: built, named, checked, unpacked; and no archive of a stranger leaves its root, or ends in a traceback."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from labkit.appc import aci
from labkit.appc.image_manifest import App, ImageManifest
from labkit.appc.types import ManifestError, serialized
from labkit.errors import LabError
from labkit.images import layer

MANIFEST = ImageManifest("example.com/web", (("version", "1"),), App(("/bin/web",), "0", "0"))
DATA = serialized(MANIFEST.record()).encode()
EPOCH = 1_000_000_000


def member(name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "", **more: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.mtime = kind, linkname, 0o755, EPOCH
    made.uid, made.gid = os.getuid(), os.getgid()
    for key, value in more.items():
        setattr(made, key, value)
    return made


ROOT = member("rootfs", tarfile.DIRTYPE)
Entry = tuple[tarfile.TarInfo, bytes]


def archive(file: Path, entries: Iterable[Entry | tarfile.TarInfo], *, manifest: bytes | None = DATA, root: bool = True) -> Path:
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        first: list[Entry | tarfile.TarInfo] = [(member("manifest"), manifest)] if manifest is not None else []
        for each in (*first, *([ROOT] if root else []), *entries):
            one, data = each if isinstance(each, tuple) else (each, b"")
            if one.isreg():
                one.size = len(data)
            tar.addfile(one, io.BytesIO(data))
    return file


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "web" / "rootfs"
    (root / "bin").mkdir(parents=True)
    (root / "bin/web").write_text("#!/bin/sh\n")
    (root / "bin/web").chmod(0o4755)
    os.link(root / "bin/web", root / "same")
    (root / "link").symlink_to("/nowhere")
    os.mkfifo(root / "pipe")
    os.setxattr(root / "bin/web", "user.labkit", b"\xff\0x")
    (root / ".wh.kept").write_text("a name as any other here")
    for path in ("bin/web", "bin", "."):
        os.utime(root / path, (EPOCH, EPOCH + 0.5))
    return root


def outside(tmp_path: Path, kept: set[Path]) -> set[Path]:
    return {path for path in tmp_path.rglob("*") if not any(path.is_relative_to(each) for each in kept)}


@pytest.mark.parametrize("compression", [None, "gzip", "bzip2", "xz"])
def test_what_was_built_is_named_by_its_tar_and_comes_back_as_it_was(rootfs: Path, tmp_path: Path, compression: str | None) -> None:
    file, copy = tmp_path / "web.aci", tmp_path / "copy"
    name = aci.build(MANIFEST, rootfs, file, compression=compression)
    unpacked = {None: bytes, "gzip": gzip.decompress, "bzip2": bz2.decompress, "xz": lzma.decompress}[compression](file.read_bytes())
    assert str(name) == f"sha512-{hashlib.sha512(unpacked).hexdigest()}" == str(aci.image_id(file))
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as tar:
        assert tar.getnames()[:3] == ["manifest", "rootfs", "rootfs/.wh.kept"]
    assert aci.check(file) == aci.unpack(file, copy) == MANIFEST
    assert layer.difference(rootfs, copy) == ([], [])
    assert (copy / "same").samefile(copy / "bin/web")
    times = [path.lstat().st_mtime for path in (copy, copy / "bin", copy / "bin/web")]
    assert times == [EPOCH + 0.5] * 3


def test_the_same_tree_gives_the_same_name_and_an_epoch_bounds_its_times(rootfs: Path, tmp_path: Path) -> None:
    assert aci.build(MANIFEST, rootfs, tmp_path / "1") == aci.build(MANIFEST, rootfs, tmp_path / "2", compression="gzip")
    aci.build(MANIFEST, rootfs, tmp_path / "3", epoch=5)
    with tarfile.open(tmp_path / "3") as tar:
        assert {each.mtime for each in tar} == {5}


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar"])
def test_what_tar_itself_packs_is_taken(rootfs: Path, tmp_path: Path, form: str) -> None:
    deep = "/".join(["directory-of-a-long-name"] * (3 if form == "ustar" else 12))
    (rootfs / deep).mkdir(parents=True)
    (rootfs / deep / "file").write_text("x")
    (rootfs.parent / "manifest").write_bytes(DATA)
    more = ["--xattrs"] if form == "pax" else []
    subprocess.run(["tar", *more, f"--format={form}", "-czf", tmp_path / "a.aci", "-C", rootfs.parent, "manifest", "rootfs"], check=True)
    assert aci.unpack(tmp_path / "a.aci", tmp_path / "copy") == MANIFEST
    if form != "pax":
        os.removexattr(rootfs / "bin/web", "user.labkit")
    assert layer.difference(rootfs, tmp_path / "copy") == ([], [])


def test_a_sparse_file_is_unpacked_and_one_whose_parts_lie_over_each_other_is_refused(rootfs: Path, tmp_path: Path) -> None:
    with (rootfs / "sparse").open("wb") as file:
        for place in (2**20, 2**22):
            file.seek(place)
            file.write(b"x")
    (rootfs.parent / "manifest").write_bytes(DATA)
    for form in ("gnu", "pax"):
        packed = tmp_path / form
        subprocess.run(["tar", "-S", f"--format={form}", "-cf", packed, "-C", rootfs.parent, "manifest", "rootfs"], check=True)
        assert packed.stat().st_size < 2**20
        aci.unpack(packed, tmp_path / f"{form}-copy")
        assert (tmp_path / f"{form}-copy" / "sparse").read_bytes() == (rootfs / "sparse").read_bytes()
    data = bytearray((tmp_path / "gnu").read_bytes())
    header = data.index(b"rootfs/sparse")
    data[header + 386 + 24 : header + 386 + 36] = b"00000000000\0"  # where its second part begins
    data[header + 148 : header + 156] = b" " * 8
    data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + 512])
    (tmp_path / "gnu").write_bytes(data)
    with pytest.raises(LabError, match="parts do not follow each other"):
        aci.check(tmp_path / "gnu")


def test_names_that_begin_with_a_dot_and_a_manifest_behind_rootfs_are_taken(tmp_path: Path) -> None:
    entries = [
        member("./", tarfile.DIRTYPE),
        member("./rootfs/", tarfile.DIRTYPE),
        member("./rootfs/a/b"),
        member("./rootfs/a", tarfile.DIRTYPE),
    ]
    file = archive(tmp_path / "a", [*entries, (member("./manifest"), DATA)], manifest=None, root=False)
    assert aci.unpack(file, tmp_path / "root") == MANIFEST
    assert (tmp_path / "root/a/b").is_file()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"manifest": None}, "no manifest"),
        ({"root": False}, "no directory rootfs"),
        ({"manifest": b"{}"}, "acKind: is required"),
    ],
)
def test_an_archive_without_what_an_image_needs_is_refused(tmp_path: Path, arguments: dict[str, object], why: str) -> None:
    with pytest.raises(LabError, match=why):
        aci.check(archive(tmp_path / "a", [member("rootfs/etc/x")], **arguments))  # type: ignore[arg-type]


LONG = "rootfs/" + "x" * 256
REFUSED = [
    (member("other"), "only manifest and rootfs"),
    (member("/rootfs/x"), "leaves the root"),
    (member("rootfs/../../x"), "leaves the root"),
    (member("../x"), "leaves the root"),
    (member("manifest"), "twice"),
    (member("rootfs", tarfile.DIRTYPE), "twice"),
    (member("./rootfs/"), "must be a directory"),
    (member("rootfs/late", tarfile.LNKTYPE, "rootfs/later"), "no file of rootfs"),
    (member("rootfs/out", tarfile.LNKTYPE, "/etc/passwd"), "leaves the root"),
    (member("rootfs/out", tarfile.LNKTYPE, "rootfs/../../x"), "leaves the root"),
    (member("rootfs/out", tarfile.LNKTYPE, "manifest"), "no file of rootfs"),
    (member("rootfs/out", tarfile.LNKTYPE, "rootfs"), "no file of rootfs"),
    (member("rootfs/disk", tarfile.BLKTYPE, devmajor=8, devminor=0), "a device, 8:0"),
    (member("rootfs/kmem", tarfile.CHRTYPE, devmajor=1, devminor=2), "a device, 1:2"),
    (member("rootfs/what", b"Z"), "which no file has"),
    (member("rootfs/when", mtime=2.0**41), "its time .* is none"),
    (member("rootfs/who", uid=2**32 - 1), "its owner"),
    (member(LONG), "too long"),
    (member("rootfs/" + "d/" * 300 + "x"), "more than 256 directories"),
    (member("rootfs/mine", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"}), "the kernel's own"),
]


@pytest.mark.parametrize(("entry", "why"), REFUSED, ids=[f"{entry.name[:20]} {why}" for entry, why in REFUSED])
def test_an_entry_that_has_no_place_in_an_image_is_refused_by_its_name_and_nothing_is_unpacked(
    tmp_path: Path, entry: tarfile.TarInfo, why: str
) -> None:
    file = archive(tmp_path / "a", [member("rootfs/first"), entry])
    for work in (lambda: aci.check(file), lambda: aci.unpack(file, tmp_path / "root")):
        with pytest.raises(LabError, match=why) as caught:
            work()
        assert caught.value.message.startswith(f"archive entry {entry.name!r} refused")
    assert not (tmp_path / "root").exists()


def test_nothing_is_put_through_a_link(tmp_path: Path) -> None:
    file = archive(tmp_path / "a", [member("rootfs/a", tarfile.SYMTYPE, str(tmp_path)), member("rootfs/a/b")])
    with pytest.raises(LabError, match="'rootfs/a' above it is no directory"):
        aci.unpack(file, tmp_path / "root")
    assert outside(tmp_path, {file}) == set()


def test_devices_that_every_pod_has_are_left_out(tmp_path: Path) -> None:
    file = archive(
        tmp_path / "a", [member("rootfs/dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3), member("rootfs/dev/pipe", tarfile.FIFOTYPE)]
    )
    aci.unpack(file, tmp_path / "root")
    assert sorted(os.listdir(tmp_path / "root/dev")) == ["pipe"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_too_much_is_refused_before_it_fills_the_disk(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    plain = archive(tmp_path / "plain", [(member("rootfs/zeros"), bytes(2**22))])
    file = tmp_path / "a"
    file.write_bytes(compress(plain.read_bytes()))
    aci.check(file)
    with pytest.raises(LabError, match=f"more than {2**20} bytes"):
        aci.unpack(file, tmp_path / "root", largest=2**20)
    assert not (tmp_path / "root").exists()


def test_a_header_cannot_be_as_large_as_the_archive(tmp_path: Path) -> None:
    file = tmp_path / "a"
    header = member("rootfs/x", tarfile.XHDTYPE)
    header.size = 2**24
    file.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2**24) + bytes(1024))
    with pytest.raises(LabError, match="no whole tar archive"):
        aci.check(file)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_file_that_ends_too_early_is_refused(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    whole = compress(archive(tmp_path / "plain", [(member("rootfs/x"), os.urandom(2**16))]).read_bytes())
    file = tmp_path / "a"
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LabError, match="no whole"):
        aci.check(file)


def test_what_is_no_file_is_refused_in_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for name, why in (("pipe", "no regular file"), ("gone", "no such file"), (".", "directory"), ("empty", "no whole tar")):
        with pytest.raises(LabError, match=why):
            aci.check(tmp_path / name)


def test_streams_that_follow_each_other_are_one(rootfs: Path, tmp_path: Path) -> None:
    name = aci.build(MANIFEST, rootfs, tmp_path / "plain")
    data = (tmp_path / "plain").read_bytes()
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        (tmp_path / "two").write_bytes(compress(data[:1000]) + compress(data[1000:]))
        assert aci.image_id(tmp_path / "two") == name


# Mutated archives: whatever a stranger packs is unpacked below the root, or refused in one line.

NAMES = [
    "manifest",
    "rootfs",
    "rootfs/a",
    "rootfs/a/b",
    "rootfs/l",
    "rootfs/l/x",
    "../x",
    "/x",
    "rootfs/../x",
    "./rootfs/c",
    "x",
    "rootfs/" + "y" * 300,
    "rootfs/\udcff",
]
TARGETS = ["rootfs/a", "/etc", "..", "../../..", "rootfs", "a", "", "rootfs/l", "x\0y"]
KINDS = (
    [tarfile.REGTYPE] * 4
    + [tarfile.DIRTYPE] * 3
    + [tarfile.SYMTYPE, tarfile.LNKTYPE] * 2
    + [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"Z", b"S"]
)
FORMATS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]
HEADERS = [
    {},
    {},
    {"SCHILY.xattr.user.a": "b"},
    {"SCHILY.xattr.": "b"},
    {"mtime": "nan"},
    {"size": "-1"},
    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
    {"path": "/x"},
    {"linkpath": "../x"},
]


def composed(any_of: random.Random) -> bytes:
    """Return an archive of entries that somebody who means harm would choose from."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=any_of.choice(FORMATS)) as tar:
        first = [(member("manifest"), DATA), (ROOT, b"")] if any_of.random() < 0.9 else []
        for _ in range(any_of.randint(0, 5)):
            made = member(any_of.choice(NAMES), any_of.choice(KINDS), any_of.choice(TARGETS))
            made.mode = any_of.choice([0o755, 0, 0o7777])
            made.pax_headers = dict(any_of.choice(HEADERS))
            made.devmajor = made.devminor = any_of.choice([0, 1, 3])
            first.append((made, any_of.randbytes(any_of.choice([0, 10, 600])) if made.isreg() else b""))
        for made, data in first:
            made.size = len(data)
            tar.addfile(made, io.BytesIO(data))
    return out.getvalue()


def damaged(data: bytes, any_of: random.Random) -> bytes:
    """Change a few bytes, most of them in headers; the sum of a changed header is made to fit again."""
    made = bytearray(data)
    for _ in range(any_of.randint(1, 5)):
        block = any_of.randrange(min(len(made) // 512, 12)) * 512
        place = block + any_of.choice([any_of.randrange(512), 156, any_of.randrange(100, 148)])
        made[place] = any_of.choice([any_of.randrange(256), 0, 0x80, 0xFF, ord("7"), ord("x"), ord("L"), ord("S")])
        if any_of.random() < 0.9:
            made[block + 148 : block + 156] = b" " * 8
            made[block + 148 : block + 156] = b"%06o\0 " % sum(made[block : block + 512])
    if any_of.random() < 0.1:
        del made[any_of.randrange(len(made)) :]
    return bytes(made)


def test_two_thousand_mutated_archives_end_in_acceptance_or_in_one_line_and_nothing_lies_outside(tmp_path: Path) -> None:
    any_of, began = random.Random(7), time.process_time()
    taken, refusals = 0, list[str]()
    file, home = tmp_path / "a.aci", tmp_path / "home" / "deep"
    home.mkdir(parents=True)
    for number in range(2_000):
        data = composed(any_of)
        data = damaged(data, any_of) if number % 2 else data
        data = any_of.choice([bytes, gzip.compress, bz2.compress])(data) if number % 5 == 0 else data
        file.write_bytes(damaged(data, any_of) if number % 10 == 0 and len(data) > 512 else data)
        root = home / str(number)
        try:
            aci.unpack(file, root, largest=2**24)
        except LabError as error:
            refusals.append(str(error))
        else:
            taken += 1
        assert outside(tmp_path, {file, home}) <= {tmp_path / "home"}
        assert sorted(home.iterdir()) == ([root] if root.exists() else [])
        if root.exists():
            emptied(root)
    assert taken > 100
    assert len(refusals) > 500
    assert [text for text in refusals if "\n" in text] == []
    assert not list(Path("/").glob("x"))
    assert time.process_time() - began < 30


def emptied(root: Path) -> None:
    for directory, names, files in os.walk(root, topdown=False):
        for name in files:
            os.unlink(os.path.join(directory, name))
        for name in names:
            path = os.path.join(directory, name)
            os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    root.rmdir()


def test_a_manifest_that_breaks_a_rule_is_refused_with_its_field(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        aci.check(archive(tmp_path / "a", [], manifest=DATA.replace(b'"user":"0"', b'"user":""')))
    assert caught.value.field == "app.user"
