"""An overlay and its layers: what each change leaves in the upper one, read from the disk and from the kernel."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from labkit import ledger, trace
from labkit.errors import LabError, SyscallError
from labkit.kernel import mounts
from labkit.kernel.mounts import ownership as mount_ledger
from labkit.kernel.overlay import Overlay, is_opaque, is_whiteout


@pytest.fixture
def place(tmp_path):
    """Two lower layers, an upper one, and at the end everything that the ledger holds undone."""
    for name in ("app", "base/etc", "base/bin", "upper", "work", "merged"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "base" / "etc" / "config").write_text("from the base\n")
    (tmp_path / "base" / "bin" / "sh").write_text("shell")
    (tmp_path / "base" / "motd").write_text("old")
    (tmp_path / "app" / "run").write_text("run")
    (tmp_path / "app" / "motd").write_text("of the app")
    yield tmp_path
    ledger.undo()
    assert ledger.live() == []
    assert mounts.at_or_below(tmp_path) == ()


@pytest.fixture
def overlay(place):
    return Overlay([place / "app", place / "base"], place / "upper", place / "work", place / "merged").mount()


def files(overlay):
    return {file.path: file for file in overlay.state().files}


def seen(overlay):
    """Every name that the merged directory really shows."""
    found = set()
    for where, directories, names in os.walk(overlay.merged):
        found |= {os.path.relpath(os.path.join(where, name), overlay.merged) for name in (*directories, *names)}
    return found


def visible(overlay):
    return {path for path, file in files(overlay).items() if file.visible}


def test_the_layers_are_seen_as_one_the_topmost_first(overlay, place):
    assert overlay.mounted
    assert (place / "merged" / "motd").read_text() == "of the app"
    assert seen(overlay) == {"bin", "bin/sh", "etc", "etc/config", "motd", "run"} == visible(overlay)
    state = overlay.state()
    assert state.fstype == "overlay"
    assert state.branches == (
        ("upperdir", str(place / "upper")),
        ("lowerdir", str(place / "app")),
        ("lowerdir", str(place / "base")),
    )
    assert (files(overlay)["motd"].layers, files(overlay)["bin/sh"].layers) == ((1, 2), (2,))


def test_the_kernel_has_the_options_that_were_given(overlay, place):
    options = mounts.at(place / "merged").super_options
    assert f"lowerdir={place}/app:{place}/base" in options
    assert f"upperdir={place}/upper" in options


def test_a_changed_file_lies_in_the_upper_layer_and_below_it_is_as_before(overlay, place):
    with open(place / "merged" / "etc" / "config", "a") as file:
        file.write("more\n")
    assert (place / "upper" / "etc" / "config").read_text() == "from the base\nmore\n"
    assert (place / "base" / "etc" / "config").read_text() == "from the base\n"
    file = files(overlay)["etc/config"]
    assert (file.layers, file.copied_up, file.visible) == ((0, 2), True, True)
    assert overlay.origin("etc/config") == place / "base" / "etc" / "config"


def test_a_new_file_is_no_copy(overlay, place):
    (place / "merged" / "new").write_text("new")
    file = files(overlay)["new"]
    assert (file.layers, file.copied_up) == ((0,), False)
    assert overlay.origin("new") is None
    assert overlay.origin("bin/sh") is None


def test_a_file_made_again_after_its_removal_is_no_copy(overlay, place):
    (place / "merged" / "motd").unlink()
    (place / "merged" / "motd").write_text("again")
    assert files(overlay)["motd"].layers == (0, 1, 2)
    assert not files(overlay)["motd"].copied_up


def test_a_changed_mode_copies_the_file_up_too(overlay, place):
    (place / "merged" / "bin" / "sh").chmod(0o700)
    assert stat.S_IMODE((place / "base" / "bin" / "sh").stat().st_mode) != 0o700
    assert files(overlay)["bin/sh"].copied_up


def test_a_renamed_copy_still_knows_the_file_it_was_made_from(overlay, place):
    with open(place / "merged" / "etc" / "config", "a") as file:
        file.write("more\n")
    (place / "merged" / "etc" / "config").rename(place / "merged" / "renamed")
    assert overlay.origin("renamed") == place / "base" / "etc" / "config"
    assert files(overlay)["etc/config"].kind == "whiteout"


def test_a_removed_file_is_a_whiteout_in_the_upper_layer(overlay, place):
    (place / "merged" / "motd").unlink()
    status = os.lstat(place / "upper" / "motd")
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0
    assert is_whiteout(place / "upper" / "motd")
    file = files(overlay)["motd"]
    assert (file.kind, file.visible, file.layers) == ("whiteout", False, (0, 1, 2))
    assert (place / "base" / "motd").read_text() == "old"


def test_a_real_device_is_no_whiteout(place):
    os.mknod(place / "upper" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(place / "upper" / "zero", stat.S_IFCHR | 0o666, os.makedev(0, 0))
    assert not is_whiteout(place / "upper" / "null")
    assert is_whiteout(place / "upper" / "zero")


def test_a_directory_removed_and_made_again_is_opaque(overlay, place):
    (place / "merged" / "bin" / "sh").unlink()
    (place / "merged" / "bin").rmdir()
    (place / "merged" / "bin").mkdir()
    (place / "merged" / "bin" / "new").touch()
    assert os.getxattr(place / "upper" / "bin", "trusted.overlay.opaque") == b"y"
    assert is_opaque(place / "upper" / "bin")
    state = files(overlay)
    assert (state["bin"].kind, state["bin"].visible, state["bin"].layers) == ("opaque", True, (0, 2))
    assert (state["bin/sh"].visible, state["bin/sh"].layers) == (False, (2,))
    assert state["bin/new"].visible


def test_a_directory_that_only_holds_a_copy_is_not_opaque(overlay, place):
    (place / "merged" / "etc" / "config").write_text("mine")
    assert not is_opaque(place / "upper" / "etc")
    assert files(overlay)["etc"].kind == "directory"


def test_what_is_said_to_be_visible_is_what_the_kernel_shows_after_many_changes(overlay, place):
    merged = place / "merged"
    (merged / "d" / "e").mkdir(parents=True)
    (merged / "d" / "e" / "f").touch()
    (merged / "motd").unlink()
    (merged / "run").unlink()
    (merged / "run").mkdir()
    (merged / "run" / "inside").touch()
    (merged / "link").symlink_to("motd")
    subprocess.run(["rm", "-r", merged / "etc"], check=True)
    (merged / "etc").write_text("a file now")
    assert seen(overlay) == visible(overlay)
    overlay.unmount()
    assert not overlay.state().mounted
    assert {file.path for file in overlay.state().files if file.visible} == visible(overlay)


def test_renaming_a_lower_directory_without_redirects_is_exdev_and_changes_nothing(place):
    options = f"lowerdir={place}/base,upperdir={place}/upper,workdir={place}/work,redirect_dir=off"
    mounts.mount("overlay", place / "merged", "overlay", options)
    with pytest.raises(OSError, match="Invalid cross-device link"):
        (place / "merged" / "etc").rename(place / "merged" / "moved")
    assert files(Overlay.find(place / "merged"))["etc"].layers == (1,)
    assert list((place / "upper").iterdir()) == []


@pytest.mark.parametrize("target", ["moved", "bin/moved"])
def test_a_renamed_directory_is_followed_where_the_overlay_redirects(place, target):
    data = f"lowerdir={place}/app:{place}/base,upperdir={place}/upper,workdir={place}/work,redirect_dir=on"
    mounts.mount("overlay", place / "merged", "overlay", data)
    overlay = Overlay.find(place / "merged")
    (place / "merged" / "etc").rename(place / "merged" / target)
    assert files(overlay)[f"{target}/config"].layers == (2,)
    assert seen(overlay) == visible(overlay)


def test_the_upper_layer_keeps_its_changes_for_the_next_mount(overlay, place):
    (place / "merged" / "motd").unlink()
    (place / "merged" / "new").write_text("new")
    overlay.unmount()
    assert list((place / "merged").iterdir()) == []
    overlay.mount()
    assert not (place / "merged" / "motd").exists()
    assert (place / "merged" / "new").read_text() == "new"


def test_two_overlays_share_their_lower_layers(overlay, place):
    for name in ("upper2", "work2", "merged2"):
        (place / name).mkdir()
    second = Overlay(overlay.lowerdir, place / "upper2", place / "work2", place / "merged2").mount()
    (place / "merged" / "one").touch()
    assert "one" not in seen(second)


def test_without_an_upper_layer_it_is_read_only(place):
    overlay = Overlay([place / "app", place / "base"], None, None, place / "merged").mount()
    assert overlay.state().branches[0] == ("lowerdir", str(place / "app"))
    with pytest.raises(OSError) as caught:
        (place / "merged" / "new").touch()
    assert caught.value.errno == errno.EROFS
    assert overlay.origin("motd") is None


def test_mounting_and_unmounting_twice_is_once(overlay, place):
    assert overlay.mount() is overlay
    assert len(mounts.at_or_below(place)) == 1
    overlay.unmount()
    overlay.unmount()
    assert ledger.live() == []


def test_an_overlay_that_was_typed_by_hand_is_found_and_taken_where_the_directory_is_claimed(place):
    mount_ledger.claim(place)
    options = f"lowerdir={place}/app:{place}/base,upperdir={place}/upper,workdir={place}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, place / "merged"], check=True)
    found = Overlay.find(place / "merged")
    assert found.options == options
    found.mount()
    found.unmount()
    assert mounts.at(place / "merged") is None


def test_find_says_so_where_there_is_none(place):
    with pytest.raises(LabError, match="no overlay is mounted on"):
        Overlay.find(place / "merged")


@pytest.mark.parametrize("name", ["with blank", "with:colon", "with=equals", "with'quote", "wïth"])
def test_names_that_options_can_carry_are_mounted_found_and_typed_alike(place, name):
    for part in ("low", "up", "work", "merged"):
        (place / name / part).mkdir(parents=True)
    (place / name / "low" / "file").write_text("low")
    overlay = Overlay([place / name / "low", place / "base"], place / name / "up", place / name / "work", place / name / "merged")
    with trace.collecting() as lines:
        overlay.mount()
    (place / name / "merged" / "file").write_text("changed")
    assert (place / name / "up" / "file").read_text() == "changed"
    assert Overlay.find(overlay.merged).lowerdir == overlay.lowerdir
    assert Overlay.find(overlay.merged).upperdir == overlay.upperdir
    before = set(mounts.at(overlay.merged).super_options) - {"uuid=on"}  # on an upper layer that is not new the kernel leaves it out
    overlay.unmount()
    mount_ledger.claim(place)
    subprocess.run(["bash", "-e", "-c", lines.shell()], check=True)
    assert set(mounts.at(overlay.merged).super_options) == before
    overlay.unmount()


def test_a_merged_directory_with_a_comma_is_no_matter(place):
    (place / "mer,ged").mkdir()
    assert Overlay([place / "app"], place / "upper", place / "work", place / "mer,ged").mount().mounted


def test_a_merged_directory_that_is_somebody_s_mount_point_is_refused(place):
    subprocess.run(["mount", "-t", "tmpfs", "foreign", place / "merged"], check=True)
    try:
        overlay = Overlay([place / "app"], place / "upper", place / "work", place / "merged")
        with pytest.raises(LabError, match="is a mount point already: tmpfs foreign"):
            overlay.mount()
        with pytest.raises(LabError, match="no mount of the lab"):
            overlay.unmount()
        assert mounts.at(place / "merged").source == "foreign"
        assert not overlay.mounted
    finally:
        subprocess.run(["umount", place / "merged"], check=True)


def test_upper_and_work_on_two_mounts_are_einval_with_the_cause(place):
    mounts.tmpfs(place / "work")
    with pytest.raises(SyscallError, match="EINVAL") as caught:
        Overlay([place / "app"], place / "upper", place / "work", place / "merged").mount()
    assert caught.value.cause == "upperdir and workdir lie on different mounts"
    assert [entry.key["target"] for entry in ledger.live()] == [str(place / "work")]


def test_work_in_upper_is_einval_with_the_cause(place):
    (place / "upper" / "work").mkdir()
    with pytest.raises(SyscallError) as caught:
        Overlay([place / "app"], place / "upper", place / "upper" / "work", place / "merged").mount()
    assert caught.value.cause == "one of upperdir and workdir lies in the other"


def test_an_overlay_cannot_be_the_upper_layer_of_another_and_the_cause_is_named(overlay, place):
    for name in ("merged/up", "merged/wk", "second"):
        (place / name).mkdir()
    with pytest.raises(SyscallError) as caught:
        Overlay([place / "app"], place / "merged" / "up", place / "merged" / "wk", place / "second").mount()
    assert caught.value.cause == "upperdir lies on overlay, which cannot take an overlay's changes"


def test_an_overlay_in_use_is_ebusy_with_the_holder(overlay, place):
    process = subprocess.Popen(["sleep", "1000"], cwd=place / "merged")
    try:
        with pytest.raises(SyscallError, match="EBUSY") as caught:
            overlay.unmount()
        assert caught.value.cause == f"in use by sleep (pid {process.pid}, cwd)"
        ledger.undo()
        assert not overlay.mounted
    finally:
        process.kill()
        process.wait()


def test_a_name_that_no_layer_has_is_refused(overlay):
    with pytest.raises(LabError, match=r"no layer of .* has nothing/here"):
        overlay.origin("nothing/here")


def test_it_is_traced_as_typed(place):
    overlay = Overlay([place / "app"], place / "upper", place / "work", place / "merged")
    with trace.collecting() as lines:
        overlay.mount()
        overlay.unmount()
    options = f"lowerdir={place}/app,upperdir={place}/upper,workdir={place}/work"
    assert lines.shell() == f"mount -t overlay -o {options} overlay {place}/merged\numount {place}/merged"
    assert lines.operations[0].calls == (f'mount("overlay", "{place}/merged", "overlay", 0, "{options}")',)


def test_mounting_and_unmounting_reads_what_is_mounted_everywhere_twice_at_most(overlay, monkeypatch):
    overlay.unmount()
    read, whole = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path.name), whole(path))[1])
    overlay.mount().unmount()
    assert read.count("mountinfo") == 2
    assert not overlay.mounted


def test_a_directory_is_known_as_a_mount_point_without_reading_what_is_mounted(overlay, place):
    merged = overlay.merged
    assert mounts.is_mounted_on(merged)
    assert mounts.is_mounted_on("/")
    mounts.bind(place / "app", place / "work")
    assert mounts.is_mounted_on(place / "work")
    assert not any(mounts.is_mounted_on(other) for other in (place, place / "upper", merged / "etc"))
