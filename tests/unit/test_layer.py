"""Layers: the same tree gives the same bytes, and no archive leaves its root."""

import contextlib
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabError
from labkit.images import layer

EPOCH = 1_000_000_000


def tree(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    out.seek(0)
    return out


def member(name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, linkname, 0o755
    made.uid, made.gid = os.getuid(), os.getgid()
    return made


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_the_same_tree_gives_the_same_bytes_whenever_and_in_whatever_order_it_was_made(tmp_path: Path) -> None:
    files = ["b/2", "a", "b/1", "b-c"]
    one = tree(tmp_path / "one", files)
    two = tree(tmp_path / "two", files[::-1])
    os.utime(two / "a", (EPOCH * 1.5, EPOCH * 1.5))
    written = [layer.write(tmp_path / f"layer-{each.name}", each, epoch=EPOCH) for each in (one, two)]
    assert written[0].descriptor == written[1].descriptor
    assert written[0].diff_id == written[1].diff_id
    with tarfile.open(written[0].path) as tar:
        assert tar.getnames() == ["a", "b", "b/1", "b/2", "b-c"]
        assert {each.mtime for each in tar} == {EPOCH}


def test_links_modes_and_attributes_come_back_as_they_were(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", ["a/file"])
    (root / "a/link").symlink_to("/nowhere")
    os.link(root / "a/file", root / "same")
    (root / "a/file").chmod(0o4711)
    os.mkfifo(root / "pipe")
    os.setxattr(root / "a/file", "user.labkit", b"\xff\x00x")
    written = layer.write(tmp_path / "layer", root, epoch=EPOCH)
    copy = tmp_path / "copy"
    copy.mkdir()
    with written.path.open("rb") as packed:
        layer.apply(packed, copy)
    assert layer.difference(root, copy) == ([], [])
    assert (copy / "same").samefile(copy / "a/file")


def test_a_layer_of_two_trees_makes_the_one_into_the_other(tmp_path: Path) -> None:
    lower = tree(tmp_path / "lower", ["kept", "changed", "gone", "dir/gone", "whole/dir/below"])
    upper = tree(tmp_path / "upper", ["kept", "changed", "dir/new"])
    (upper / "changed").write_text("otherwise")
    changed, removed = layer.difference(lower, upper)
    assert sorted(changed) == ["changed", "dir/new"]
    assert sorted(removed) == ["dir/gone", "gone", "whole"]
    written = layer.write(tmp_path / "layer", upper, epoch=EPOCH, paths=changed, removed=removed)
    with tarfile.open(written.path) as tar:
        assert tar.getnames() == ["changed", "dir", "dir/new", "dir/.wh.gone", ".wh.gone", ".wh.whole"]
    with written.path.open("rb") as packed:
        layer.apply(packed, lower)
    assert layer.difference(lower, upper) == ([], [])


def test_an_opaque_directory_hides_what_was_in_it(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", ["dir/old/deep", "dir/older"])
    layer.apply(archive((member("dir/.wh..wh..opq"), b""), (member("dir/new"), b"new")), root)
    assert names(root) == ["dir", "dir/new"]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (member("../escaped"), "leaves the root"),
        (member("/absolute"), "leaves the root"),
        (member("a/../../escaped"), "leaves the root"),
        (member("out/escaped"), "'out' in its path is no directory"),
        (member("hard", tarfile.LNKTYPE, "../outside"), "leaves the root"),
        (member("hard", tarfile.LNKTYPE, "out/victim"), "'out' in its path is no directory"),
        (member("hard", tarfile.LNKTYPE, "nothing"), "No such file"),
        (member("disk", tarfile.BLKTYPE), "a device"),
        (member("null", tarfile.CHRTYPE), "a device"),
        (member(".wh..."), "a whiteout of no name"),
        (member("out/.wh.victim"), "'out' in its path is no directory"),
        (member("x" * 300), "file name too long"),
    ],
    ids=lambda value: value.name[:20] if isinstance(value, tarfile.TarInfo) else "",
)
def test_an_entry_that_would_leave_the_root_is_refused_by_its_name(tmp_path: Path, entry: tarfile.TarInfo, why: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    tree(outside, ["victim"])
    root.mkdir()
    (root / "out").symlink_to(outside)
    with pytest.raises(LabError) as caught:
        layer.apply(archive((entry, b"")), root)
    assert f"archive entry {entry.name!r} refused" in str(caught.value)
    assert why in str(caught.value)
    assert names(tmp_path) == ["outside", "outside/victim", "root", "root/out"]


def test_a_file_replaces_a_link_and_is_not_written_through_it(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    root = tmp_path / "root"
    root.mkdir()
    layer.apply(archive((member("f", tarfile.SYMTYPE, "../outside"), b""), (member("f"), b"theirs")), root)
    assert (tmp_path / "outside").read_text() == "mine"
    assert (root / "f").read_text() == "theirs"


def test_too_much_and_too_little_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="more than 10 bytes"):
        layer.apply(archive((member("a"), b"12345"), (member("b"), b"123456")), tmp_path, largest=10)
    whole = archive((member("a"), b"x" * 5000)).getvalue()
    for broken in (b"", whole[:700], b"no tar" * 200, b"\x1f\x8b" + whole):
        with pytest.raises(LabError, match="no whole tar archive"):
            layer.apply(io.BytesIO(broken), tmp_path)


PARTS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", "", ".wh.a", ".wh..wh..opq", ".wh.."]), min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
ENTRIES = st.lists(st.tuples(PARTS, KINDS, PARTS, st.booleans()), max_size=8)


@given(ENTRIES)
@settings(max_examples=300, deadline=None)
def test_no_archive_whatever_is_in_it_touches_what_is_outside_its_root(entries: list[tuple[str, bytes, str, bool]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        above = tree(Path(directory), ["a", "b", "c/a"])
        root = above / "root"
        root.mkdir()
        before = names(above), (above / "a").read_text(), (above / "a").stat()
        made = [(member(("/" if absolute else "") + name, kind, link), b"") for name, kind, link, absolute in entries]
        with contextlib.suppress(LabError):
            layer.apply(archive(*made), root)
        outside = [name for name in names(above) if not name.startswith("root/")]
        assert (outside, (above / "a").read_text(), (above / "a").stat()) == before


def test_a_header_that_no_tar_has_is_refused_in_one_line(tmp_path: Path) -> None:
    entry = member("sparse")
    entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    with pytest.raises(LabError, match="no whole tar archive") as caught:
        layer.apply(archive((entry, b"no map of a sparse file" * 100)), tmp_path)
    assert "\n" not in str(caught.value)
