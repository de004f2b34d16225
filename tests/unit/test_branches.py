"""The branches of a union read as plain directories: what is seen, what is hidden, and by what."""

import os

import pytest

from labkit.errors import LabError
from labkit.kernel import branches
from labkit.kernel.branches import Found
from labkit.kernel.overlay import Overlay, _split
from labkit.kernel.union import Union


def layers(*contents):
    """Return branches and a reader over names written as a dict: directory to {name: Found}."""
    paths = [f"/{number}" for number in range(len(contents))]
    return paths, lambda branch, directory: contents[int(branch[1:])].get(directory, {})


def merged(*contents):
    paths, read = layers(*contents)
    return {file.path: file for file in branches.walk(paths, read)}


F, D, W = Found("file"), Found("directory"), Found("whiteout")


def test_a_file_is_seen_from_the_topmost_branch_that_has_it():
    files = merged({"": {"a": F}}, {"": {"a": F, "b": F}})
    assert (files["a"].layers, files["a"].visible) == ((0, 1), True)
    assert files["b"].layers == (1,)


def test_a_whiteout_hides_what_lies_below():
    file = merged({"": {"a": W}}, {"": {"a": F}})["a"]
    assert (file.kind, file.visible, file.layers) == ("whiteout", False, (0, 1))


def test_directories_are_merged():
    files = merged({"": {"d": D}, "d": {"x": F}}, {"": {"d": D}, "d": {"y": F}})
    assert files["d"].layers == (0, 1)
    assert files["d/x"].visible
    assert files["d/y"].visible


def test_an_opaque_directory_hides_what_the_lower_one_has():
    files = merged({"": {"d": Found("directory", opaque=True)}, "d": {"x": F}}, {"": {"d": D}, "d": {"y": F, "z": D}, "d/z": {"q": F}})
    assert (files["d"].kind, files["d"].visible) == ("opaque", True)
    assert files["d/x"].visible
    assert not any(files[path].visible for path in ("d/y", "d/z", "d/z/q"))


def test_what_is_in_a_directory_that_a_whiteout_hides_is_hidden_too():
    files = merged({"": {"d": W}}, {"": {"d": D}, "d": {"y": F}})
    assert (files["d"].kind, files["d/y"].visible) == ("whiteout", False)


def test_a_file_ends_the_directory_of_its_name_below():
    files = merged({"": {"n": F}}, {"": {"n": D}, "n": {"x": F}})
    assert (files["n"].kind, files["n"].layers, files["n/x"].visible) == ("file", (0, 1), False)


def test_a_file_below_a_directory_ends_the_merge():
    files = merged({"": {"n": D}}, {"": {"n": F}}, {"": {"n": D}, "n": {"x": F}})
    assert (files["n"].kind, files["n/x"].visible) == ("directory", False)


def test_a_whiteout_in_the_middle_hides_only_what_is_below_it():
    files = merged({"": {"d": D}, "d": {"x": F}}, {"": {"d": W}}, {"": {"d": D}, "d": {"y": F}})
    assert (files["d"].kind, files["d"].visible) == ("directory", True)
    assert files["d/x"].visible
    assert not files["d/y"].visible


def test_a_whiteout_seen_from_an_upper_file_is_no_matter():
    assert merged({"": {"a": F}}, {"": {"a": W}}, {"": {"a": F}})["a"].visible


def test_a_renamed_directory_is_found_below_by_its_old_name():
    upper = {"": {"new": Found("directory", redirect="old"), "old": W}, "new": {"x": F}}
    files = merged(upper, {"": {"old": D}, "old": {"y": F}})
    assert files["new"].layers == (0, 1)
    assert files["new/y"].visible
    assert (files["old"].kind, files["old/y"].visible) == ("whiteout", False)


def test_a_directory_that_was_moved_elsewhere_is_found_from_the_root():
    upper = {"": {"a": D}, "a": {"moved": Found("directory", redirect="/deep/old")}}
    files = merged(upper, {"": {"deep": D}, "deep": {"old": D}, "deep/old": {"y": F}})
    assert files["a/moved/y"].layers == (1,)
    assert files["a/moved/y"].visible


def test_names_come_in_the_order_of_the_tree():
    files = merged({"": {"a": D, "a-b": F}, "a": {"z": F}})
    assert list(files) == ["a", "a/z", "a-b"]


def test_plain_directories_are_read_as_they_are(tmp_path):
    top, low = tmp_path / "top", tmp_path / "low"
    (top / "d").mkdir(parents=True)
    (low / "d").mkdir(parents=True)
    (low / "d" / "f").touch()
    (top / "link").symlink_to("/nowhere")
    (top / "pipe").parent.mkdir(exist_ok=True)
    os.mkfifo(top / "pipe")
    states = {file.path: file for file in branches.walk([top, low], branches.plain)}
    assert {path: (file.kind, file.layers) for path, file in states.items()} == {
        "d": ("directory", (0, 1)),
        "d/f": ("file", (1,)),
        "link": ("symlink", (0,)),
        "pipe": ("file", (0,)),
    }


@pytest.mark.parametrize("meta", branches.UNIONFS_META)
def test_unionfs_hides_by_a_file_in_a_directory_beside(tmp_path, meta):
    top, low = tmp_path / "top", tmp_path / "low"
    for path in (top / meta / "sub", low / "sub", low / "again", top / "again", top / meta / "again_HIDDEN~"):
        path.mkdir(parents=True)
    for path in (low / "f", low / "sub" / "g", low / "again" / "old", top / meta / "f_HIDDEN~", top / meta / "sub" / "g_HIDDEN~"):
        path.touch()
    states = {file.path: file for file in branches.walk([top, low], branches.unionfs)}
    assert (states["f"].kind, states["f"].visible) == ("whiteout", False)
    assert (states["sub/g"].kind, states["sub/g"].layers) == ("whiteout", (0, 1))
    assert (states["again"].kind, states["again/old"].visible) == ("opaque", False)
    assert not any(path.startswith(".unionfs") for path in states)


def test_marks_of_an_unprivileged_overlay_are_read_without_root(tmp_path):
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for directory in (upper / "opaque", lower / "opaque", upper / "some", lower / "some"):
        directory.mkdir(parents=True)
    for path in (lower / "opaque" / "x", lower / "some" / "y", upper / "some" / "y"):
        path.touch()
    os.setxattr(upper / "opaque", "user.overlay.opaque", b"y")
    os.setxattr(upper / "some", "user.overlay.opaque", b"x")
    os.setxattr(upper / "some" / "y", "user.overlay.whiteout", b"")
    states = {file.path: file for file in branches.walk([upper, lower], branches.overlay)}
    assert (states["opaque"].kind, states["opaque/x"].visible) == ("opaque", False)
    assert (states["some"].kind, states["some/y"].kind) == ("directory", "whiteout")
    assert branches.is_opaque(upper / "opaque")
    assert not branches.is_opaque(upper / "some")
    assert branches.is_whiteout(upper / "some" / "y")
    assert not branches.is_whiteout(lower / "some" / "y")


def test_an_empty_file_is_no_whiteout_and_a_missing_one_neither(tmp_path):
    (tmp_path / "empty").touch()
    assert not branches.is_whiteout(tmp_path / "empty")
    assert not branches.is_whiteout(tmp_path / "missing")
    assert not branches.is_opaque(tmp_path / "missing")


def test_the_note_of_copy_up_gives_type_and_handle(tmp_path):
    (tmp_path / "f").touch()
    handle = b"\x01\x02\x03\x04\x05\x06\x07\x08"
    note = bytes([0, 0xFB, 21 + len(handle), 0, 1]) + bytes(16) + handle
    os.setxattr(tmp_path / "f", "user.overlay.origin", note)
    assert branches.origin_handle(tmp_path / "f") == (1, handle)
    os.setxattr(tmp_path / "f", "user.overlay.origin", b"")
    assert branches.origin_handle(tmp_path / "f") is None
    assert branches.was_copied_up(tmp_path / "f")


@pytest.fixture
def directories(tmp_path):
    for name in ("low", "up", "work", "merged"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_the_options_are_written_as_typed(directories):
    overlay = Overlay([directories / "a:b", directories / "low"], directories / "up", directories / "work", directories / "merged")
    d = directories
    assert overlay.options == f"lowerdir={d}/a\\:b:{d}/low,upperdir={d}/up,workdir={d}/work"
    assert Overlay(["/one", "/two"], None, None, "/m").options == "lowerdir=/one:/two"


def test_lowerdirs_are_split_at_colons_that_are_not_escaped():
    assert _split("/a\\:b:/c d:/e") == ["/a:b", "/c d", "/e"]


@pytest.mark.parametrize(("letter", "words"), [(",", "a comma"), ("\\", "a backslash"), ('"', "a quotation mark")])
def test_a_directory_that_options_cannot_carry_is_refused_in_one_line(directories, letter, words):
    (directories / f"a{letter}b").mkdir()
    overlay = Overlay([directories / f"a{letter}b"], directories / "up", directories / "work", directories / "merged")
    with pytest.raises(LabError, match=words) as caught:
        overlay.mount()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("remedy: rename it")


@pytest.mark.parametrize("missing", ["low", "up", "work", "merged"])
def test_a_directory_that_is_not_there_is_named_with_its_role(directories, missing):
    (directories / missing).rmdir()
    overlay = Overlay([directories / "low"], directories / "up", directories / "work", directories / "merged")
    with pytest.raises(LabError, match=rf"overlay: \w+ {directories}/{missing} is not there; remedy: mkdir -p"):
        overlay.mount()


def test_what_makes_no_overlay_is_refused(directories):
    with pytest.raises(LabError, match="no lowerdir"):
        Overlay([], None, None, directories / "merged").mount()
    with pytest.raises(LabError, match="go together"):
        Overlay([directories / "low"], directories / "up", None, directories / "merged").mount()
    with pytest.raises(LabError, match="nothing to be merged with"):
        Overlay(directories / "low", None, None, directories / "merged").mount()


def test_more_lower_directories_than_one_page_of_options_are_refused(directories):
    overlay = Overlay([directories / "low"] * 400, directories / "up", directories / "work", directories / "merged")
    with pytest.raises(LabError, match=r"mount\(2\) takes 4095"):
        overlay.mount()


@pytest.mark.parametrize("letter", list(":=,*?[\\"))
def test_a_branch_that_a_union_cannot_be_told_is_refused(directories, letter):
    (directories / f"a{letter}b").mkdir()
    with pytest.raises(LabError, match="cannot carry; remedy: rename it"):
        Union([(directories / f"a{letter}b", "RW")], directories / "merged").mount()


def test_a_union_refuses_a_mode_a_branch_and_a_program_that_are_not_there(directories):
    with pytest.raises(LabError, match='"RW" or "RO"'):
        Union([(directories / "low", "rw")], directories / "merged").mount()
    with pytest.raises(LabError, match="missing is not there"):
        Union([(directories / "missing", "RW")], directories / "merged").mount()
    with pytest.raises(LabError, match="no branch"):
        Union([], directories / "merged").mount()
    with pytest.raises(LabError, match="one of unionfs, fuse-overlayfs, mergerfs"):
        Union([(directories / "low", "RW")], directories / "merged", program="aufs").command()


def test_a_union_is_written_as_typed(directories, monkeypatch):
    binaries = directories / "bin"
    binaries.mkdir()
    for name in ("unionfs", "fuse-overlayfs", "mergerfs"):
        (binaries / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(binaries))
    d = directories
    both = [(d / "up", "RW"), (d / "low", "RO")]
    assert Union(both, d / "merged").command() == ["unionfs", "-o", "cow", f"{d}/up=RW:{d}/low=RO", f"{d}/merged"]
    only_read = [(d / "up", "RO"), (d / "low", "RO")]
    assert Union(only_read, d / "merged").command() == ["unionfs", f"{d}/up:{d}/low", f"{d}/merged"]
    (binaries / "unionfs").unlink()
    options = f"lowerdir={d}/low,upperdir={d}/up,workdir={d}/.up.work"
    assert Union(both, d / "merged").command() == ["fuse-overlayfs", "-o", options, f"{d}/merged"]
    assert Union(only_read, d / "merged").command() == ["fuse-overlayfs", "-o", f"lowerdir={d}/up:{d}/low", f"{d}/merged"]
    lower_writable = [(d / "up", "RO"), (d / "low", "RW")]
    assert Union(lower_writable, d / "merged").command()[0] == "mergerfs"
    with pytest.raises(LabError, match="fuse-overlayfs can write to the topmost branch only"):
        Union(lower_writable, d / "merged", program="fuse-overlayfs").command()
    (binaries / "fuse-overlayfs").unlink()
    options = "category.create=ff,minfreespace=0"
    assert Union(both, d / "merged").command() == ["mergerfs", "-o", options, f"{d}/up=RW:{d}/low=RO", f"{d}/merged"]
    assert Union(only_read, d / "merged").command() == ["mergerfs", "-o", "ro", f"{d}/up=RO:{d}/low=RO", f"{d}/merged"]
    (binaries / "mergerfs").unlink()
    with pytest.raises(LabError, match=r"needs unionfs or fuse-overlayfs or mergerfs; .* unionfs-fuse or fuse-overlayfs or mergerfs"):
        Union(both, d / "merged").command()


def test_fuse_overlayfs_keeps_names_for_itself_which_are_not_shown(directories):
    (directories / "up" / "sub").mkdir(parents=True)
    (directories / "up" / "sub" / ".wh..wh..opq").touch()
    (directories / "up" / "sub" / "other").touch()
    assert set(branches.fuse_overlay(directories / "up", "sub")) == {"other"}
