"""Directories of the lab are removed whole, and nothing outside them is touched."""

import errno
import os
import subprocess

import pytest

from labkit import ledger, trace
from labkit.errors import LabError, SyscallError
from labkit.kernel import mounts, trees
from labkit.kernel.trees import make_tree, remove_tree


def run(*argv):
    subprocess.run([str(word) for word in argv], check=True, capture_output=True)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "canary").write_text("alive")
    yield tmp_path
    ledger.undo()
    assert ledger.live() == []
    assert (tmp_path / "outside" / "canary").read_text() == "alive"
    assert mounts.at_or_below(tmp_path) == ()


def test_a_directory_is_made_and_removed_with_all_in_it(place):
    tree = make_tree(place / "tree")
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_text("x")
    (tree / "a" / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "a" / "b" / "pipe")
    os.mknod(tree / "whiteout", 0o020000, 0)
    (tree / "shut").mkdir(mode=0)
    remove_tree(tree)
    assert not tree.exists()
    assert ledger.live() == []


def test_making_it_twice_is_once_and_keeps_what_is_in_it(place):
    tree = make_tree(place / "tree")
    (tree / "kept").touch()
    assert make_tree(place / "tree") == tree
    assert (tree / "kept").exists()
    assert len(ledger.live()) == 1


def test_a_directory_that_is_there_is_neither_taken_nor_removed(place):
    for change in (make_tree, remove_tree):
        with pytest.raises(LabError, match="was not made by this lab"):
            change(place / "outside")


@pytest.mark.parametrize("path", ["relative", "/tmp/../etc", "/", "/etc", "/root", "/tmp/zero\0"])
def test_paths_that_are_no_directory_of_a_lab_are_refused(path):
    with pytest.raises(LabError):
        make_tree(path)
    with pytest.raises(LabError):
        remove_tree(path)


def test_a_missing_parent_is_named_except_in_the_lab_s_own_place(place):
    with pytest.raises(LabError, match=f"{place}/no, is not there; remedy: mkdir -p {place}/no"):
        make_tree(place / "no" / "tree")
    assert make_tree(ledger.state() / "labs" / "9.9").is_dir()


def test_a_link_in_place_of_the_directory_is_not_followed(place):
    tree = make_tree(place / "tree")
    tree.rmdir()
    tree.symlink_to(place / "outside")
    with pytest.raises(LabError, match="was not made by this lab and stays"):
        remove_tree(tree)
    ledger.undo()
    assert tree.is_symlink()


def test_links_inside_are_removed_not_followed(place):
    tree = make_tree(place / "tree")
    (tree / "to-directory").symlink_to(place / "outside")
    (tree / "to-file").symlink_to(place / "outside" / "canary")
    remove_tree(tree)
    assert (place / "outside" / "canary").read_text() == "alive"


def test_a_directory_made_anew_by_somebody_else_is_left_alone(place):
    tree = make_tree(place / "tree")
    tree.rmdir()
    tree.mkdir()
    (tree / "theirs").touch()
    with pytest.raises(LabError, match="was not made by this lab and stays"):
        remove_tree(tree)
    ledger.undo()
    assert (tree / "theirs").exists()


def test_a_directory_that_is_gone_is_forgotten(place):
    tree = make_tree(place / "tree")
    tree.rmdir()
    remove_tree(tree)
    assert ledger.live() == []
    with pytest.raises(LabError, match="is not there"):
        remove_tree(tree)


def test_an_intent_whose_maker_died_takes_the_directory(place):
    ledger.intend("tree", path=str(place / "tree"))
    (place / "tree").mkdir()
    ledger.undo()
    assert not (place / "tree").exists()


def test_a_foreign_bind_mount_inside_is_named_and_nothing_is_removed(place):
    tree = make_tree(place / "tree")
    (tree / "file").touch()
    (tree / "bound").mkdir()
    run("mount", "--bind", place / "outside", tree / "bound")
    try:
        with pytest.raises(LabError, match=rf"{tree}/bound \(\w+ .*\) is mounted in {tree}, which stays as it is; remedy: umount"):
            remove_tree(tree)
        with pytest.raises(ExceptionGroup):
            ledger.undo()
        assert (tree / "file").exists()
        assert (place / "outside" / "canary").exists()
    finally:
        run("umount", tree / "bound")
    remove_tree(tree)


def test_a_foreign_bind_mount_over_the_directory_itself_is_named_too(place):
    tree = make_tree(place / "tree")
    run("mount", "--bind", place / "outside", tree)
    try:
        with pytest.raises(LabError, match="was not made by this lab and stays"):
            remove_tree(tree)
        ledger.undo()
        assert (place / "outside" / "canary").exists()
    finally:
        run("umount", tree)
    os.rmdir(tree)


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_bind_mount_that_comes_between_look_and_removal_is_not_crossed(place, kind, monkeypatch):
    tree = make_tree(place / "tree")
    inner = tree / "a" / "bound"
    inner.parent.mkdir()
    source = place / "outside" if kind == "directory" else place / "outside" / "canary"
    inner.mkdir() if kind == "directory" else inner.touch()
    look = trees.mounts.at_or_below

    def mount_after_the_look(directory):
        found = look(directory)
        if not mounts.at(inner):
            run("mount", "--bind", source, inner)
        return found if len(found) == 0 else ()

    monkeypatch.setattr(trees.mounts, "at_or_below", mount_after_the_look)
    try:
        with pytest.raises(LabError, match=rf"{inner} is a mount point"):
            remove_tree(tree)
        assert (place / "outside" / "canary").read_text() == "alive"
    finally:
        monkeypatch.undo()
        run("umount", inner)


def test_mounts_of_the_lab_inside_are_detached_first(place):
    tree = make_tree(place / "tree")
    (tree / "memory").mkdir()
    (tree / "bound").mkdir()
    mounts.tmpfs(tree / "memory")
    mounts.bind(place / "outside", tree / "bound")
    remove_tree(tree)
    assert not tree.exists()
    assert (place / "outside" / "canary").exists()


def test_undo_takes_mounts_and_tree_in_the_right_order(place):
    tree = make_tree(place / "tree")
    (tree / "bound").mkdir()
    mounts.bind(place / "outside", tree / "bound")
    ledger.undo()
    assert not tree.exists()


def test_a_very_deep_tree_is_removed(place):
    tree = make_tree(place / "tree")
    current = os.open(tree, os.O_RDONLY)
    for _ in range(3000):  # deeper than Python's stack, than open files, and than any path
        os.mkdir("d", dir_fd=current)
        below = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)
    remove_tree(tree)
    assert not tree.exists()


def test_an_immutable_file_is_named(place):
    tree = make_tree(place / "tree")
    (tree / "rock").touch()
    run("chattr", "+i", tree / "rock")
    try:
        with pytest.raises(SyscallError, match=rf'^unlink\("{tree}/rock"\): EPERM') as caught:
            remove_tree(tree)
        assert caught.value.errno == errno.EPERM
    finally:
        run("chattr", "-i", tree / "rock")
    remove_tree(tree)


def test_it_is_traced_as_typed(place):
    with trace.collecting() as lines:
        make_tree(place / "tree")
        remove_tree(place / "tree")
    assert lines.shell() == f"mkdir -p {place}/tree\nrm -r --one-file-system {place}/tree"
