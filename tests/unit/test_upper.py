"""The upper layer of an overlay, read as plain directories: what it changes in what the lower ones show."""

import os
import stat
from pathlib import Path

import pytest

from labkit import show
from labkit.kernel.upper import PathChange, between


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, list[Path]]:
    for name in ("app/etc", "base/etc", "base/var/log", "upper"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "app/etc/motd").write_text("of the app")
    (tmp_path / "base/etc/motd").write_text("old")
    (tmp_path / "base/etc/passwd").write_text("root")
    (tmp_path / "base/var/log/syslog").write_text("line")
    return tmp_path / "upper", [tmp_path / "app", tmp_path / "base"]


def whiteout(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR | 0o600, 0)


def kinds(changes: tuple[PathChange, ...]) -> list[str]:
    return [f"{change.kind[0]} {change.path}" for change in changes]


def test_a_new_file_a_changed_one_and_a_deleted_one(layers) -> None:
    upper, lower = layers
    (upper / "etc").mkdir()
    (upper / "etc/motd").write_text("mine")
    (upper / "data").write_text("new")
    whiteout(upper / "var/log/syslog")
    assert kinds(between(upper, lower)) == ["a data", "c etc", "c etc/motd", "c var", "c var/log", "r var/log/syslog"]


def test_a_whiteout_of_what_is_hidden_already_changes_nothing(layers) -> None:
    upper, (app, base) = layers
    whiteout(app / "var")
    whiteout(upper / "var")
    whiteout(upper / "nothing")
    assert between(upper, [app, base]) == ()


def test_a_copy_that_is_as_below_does_not_count(layers) -> None:
    upper, lower = layers
    below = (lower[1] / "etc/passwd").stat()
    (upper / "etc").mkdir()
    (upper / "etc/passwd").write_text("root")
    os.utime(upper / "etc/passwd", ns=(below.st_atime_ns, below.st_mtime_ns))
    assert between(upper, lower) == ()


def test_a_directory_that_was_made_anew_hides_what_lay_in_it(layers) -> None:
    upper, lower = layers
    (upper / "etc").mkdir()
    try:
        os.setxattr(upper / "etc", "trusted.overlay.opaque", b"y")
    except PermissionError:
        os.setxattr(upper / "etc", "user.overlay.opaque", b"y")
    (upper / "etc/motd").write_text("mine")
    assert kinds(between(upper, lower)) == ["c etc", "c etc/motd", "r etc/passwd"]


def test_the_view_says_it_by_sign_word_and_path() -> None:
    view = show.changes_view("web", [PathChange("data", "added"), PathChange("etc/motd", "removed")])
    assert view.text.splitlines() == ["web: 2 paths in its upper layer", "  +  added    /data", "  -  removed  /etc/motd"]
