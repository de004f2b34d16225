"""Two root file systems compared: each thing that can differ is found, and nothing else."""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.kernel import contents


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal trees with one of each kind of file."""
    for name in ("one", "other"):
        root = tmp_path / name
        (root / "etc/deep").mkdir(parents=True)
        (root / "etc/passwd").write_text("root\n")
        (root / "etc/deep/empty").touch()
        (root / "sh").symlink_to("etc/passwd")
        os.mkfifo(root / "pipe")
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.chown(root / "etc/deep/empty", 33, 34)
    return tmp_path / "one", tmp_path / "other"


def test_equal_trees_are_equal_whatever_their_times(roots: tuple[Path, Path]) -> None:
    os.utime(roots[1] / "etc/passwd", (0, 0))
    compared = contents.compare(*roots)
    assert (compared.names, compared.covered, compared.unequal) == (7, (), ())


def emptied(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "content": ("etc/passwd", lambda path: path.write_text("toor\n")),
    "mode": ("etc/passwd", lambda path: path.chmod(0o4755)),
    "owner": ("etc/deep", lambda path: os.chown(path, 0, 7)),
    "xattrs": ("etc/deep/empty", lambda path: os.setxattr(path, "trusted.label", b"x")),
    "kind, mode": ("null", emptied),
    "only in the first": ("pipe", lambda path: path.unlink()),
    "only in the second": ("etc/new", lambda path: path.touch()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_difference_is_named(what: str, roots: tuple[Path, Path]) -> None:
    path, change = CHANGES[what]
    change(roots[1] / path)
    (found,) = contents.compare(*roots).unequal
    assert (found.path, found.what.replace(", content", "")) == (path, what)


def test_a_link_is_compared_by_where_it_leads_and_a_device_by_its_numbers(roots: tuple[Path, Path]) -> None:
    (roots[1] / "sh").unlink()
    (roots[1] / "sh").symlink_to("etc/shadow")
    (roots[1] / "null").unlink()
    os.mknod(roots[1] / "null", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    assert [(each.path, each.what) for each in contents.compare(*roots).unequal] == [("null", "content"), ("sh", "content")]


def test_what_is_mounted_over_one_of_them_is_left_out_and_named(roots: tuple[Path, Path]) -> None:
    place = roots[1] / "etc/deep"
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        (place / "other").touch()
        (place / "below").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", place / "below"], check=True)
        compared = contents.compare(*roots)
        assert compared.covered == ("etc/deep",)
        assert compared.unequal == ()
    finally:
        subprocess.run(["umount", "--recursive", place], check=True)


def test_a_root_that_is_not_there_is_an_error_and_no_equality(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        contents.compare(tmp_path / "none", tmp_path / "none")
