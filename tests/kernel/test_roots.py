"""Roots of processes: by chroot or by pivot_root, and which of them is the top of its mount namespace."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.kernel import processes, roots
from labkit.kernel.processes.process import Process


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a root directory with a static program in it."""
    (tmp_path / "tree/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", tmp_path / "tree/bin/busybox")
    return tmp_path / "tree"


@pytest.fixture
def ended() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    while started:
        started.pop().kill()


SLEEP = ("/bin/busybox", "sleep", "600")


def test_who_has_a_directory_for_root_is_found_by_chroot_and_by_pivot_root_alike(tree: Path, ended: list[Process]):
    ended += [processes.start(SLEEP, chroot=tree), processes.start(SLEEP, root=tree, new=["mount"])]
    assert {process.pid for process in ended} == set(roots.processes_in(tree))


def test_the_working_directory_is_not_the_root(tree: Path, ended: list[Process]):
    ended.append(processes.start(SLEEP, cwd=tree))
    assert list(roots.processes_in(tree)) == []
    assert ended[0].pid in roots.processes_in("/")


def test_a_directory_that_is_not_there_is_nobodys_root(tree: Path):
    assert list(roots.processes_in(tree / "nothing")) == []


def test_only_pivot_root_makes_a_directory_the_top(tree: Path, ended: list[Process]):
    ended += [
        processes.start(SLEEP, chroot=tree),
        processes.start(SLEEP, chroot=tree, new=["mount"]),
        processes.start(SLEEP, root=tree, new=["mount"]),
    ]
    assert [roots.is_top(process.pid) for process in ended] == [False, False, True]



def test_looking_into_another_mount_namespace_moves_nobody_else(tree: Path, ended: list[Process]):
    ended.append(processes.start(SLEEP, root=tree, new=["mount"]))
    assert roots.is_top(ended[0].pid)
    assert tree.is_dir(), "this process still sees the machine"


def test_mapped_names_the_program_where_it_lies(tree: Path, ended: list[Process]):
    ended.append(processes.start(SLEEP, chroot=tree))
    assert roots.mapped(ended[0].pid) == (str(tree / "bin/busybox"),)


def test_a_process_that_is_gone_has_nothing_mapped():
    assert roots.mapped(0x3FFFFF) == ()


def test_the_release_of_a_system_without_one_is_empty(tree: Path):
    assert roots.release(tree) == ""
    assert roots.release("/").startswith("Debian")
