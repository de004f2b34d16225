"""Seeding: real images by digest, stand-ins where there are none, and nothing half done."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.images import catalogue, seed
from labkit.images.catalogue import Image
from labkit.images.oci import ImageConfig, Manifest
from labkit.images.registry import Registry, UnreachableError
from labkit.images.serving import serving

LABKIT = Path(__file__).resolve().parents[2] / ".venv/bin/labkit"


def labkit(*argv: str, state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LABKIT, *argv], env={**os.environ, "LABKIT_STATE": str(state)}, capture_output=True, text=True, timeout=120)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line with which a command refused."""
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    return line


def test_the_real_image_is_copied_by_its_digest_for_this_machine(tiny: Image, upstream: Registry, lab: Registry, state: Path) -> None:
    (found,) = seed.seed([], lab, upstream=upstream)
    assert (found.origin, found.why) == ("real", "")
    manifest = Manifest.parse(lab.manifest("library/tiny", found.digest)[1])
    config = ImageConfig.parse(lab.read("library/tiny", manifest.config))
    assert lab.read("library/tiny", manifest.layers[0]) == f"what {config.platform.architecture} runs".encode()
    assert [each.name for each in state.joinpath("images").iterdir()] == ["lock"]
    assert seed.listed(lab) == (found,)


def test_where_no_source_answers_a_stand_in_takes_its_place_and_says_so(tiny: Image, lab: Registry, state: Path) -> None:
    said: list[str] = []
    (found,) = seed.seed(["tiny"], lab, say=said.append)
    assert found.origin == "stand-in"
    assert found.why == "registry 127.0.0.1:9 cannot be reached; cause: connection refused"
    assert said == ["tiny: looking for a tiny one", f"tiny: {found.why}; it gets a stand-in"]


@pytest.mark.usefixtures("state", "tiny")
def test_a_stand_in_makes_room_for_the_real_image_once_a_source_is_named(upstream: Registry, lab: Registry) -> None:
    assert seed.seed([], lab)[0].origin == "stand-in"
    assert seed.seed([], lab)[0].origin == "stand-in"
    assert seed.seed([], lab, upstream=upstream)[0].origin == "real"


@pytest.mark.usefixtures("state")
def test_what_the_source_does_not_have_is_no_error(tiny: Image, upstream: Registry, lab: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = replace(tiny, digest="sha256:" + 64 * "0")
    for module in (catalogue, seed):
        monkeypatch.setattr(module, "IMAGES", (elsewhere,))
    (found,) = seed.seed([], lab, upstream=upstream)
    assert found.origin == "stand-in"
    assert "404" in found.why


@pytest.mark.parametrize("which", ["index", "manifest", "config", "layer"])
def test_other_bytes_than_the_digest_says_are_refused_and_nothing_is_seeded(
    which: str, tiny: Image, upstream: Registry, lab: Registry, state: Path, tmp_path: Path
) -> None:
    manifest = Manifest.parse((tmp_path / "tiny").joinpath("blobs", *digest_of_manifest(upstream, tiny).split(":")).read_bytes())
    digests = {"index": tiny.digest, "manifest": digest_of_manifest(upstream, tiny)}
    digests |= {"config": manifest.config.digest, "layer": manifest.layers[0].digest}
    encoded = digests[which].partition(":")[2]
    blob = tmp_path / "upstream/docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"
    data = blob.read_bytes()
    blob.write_bytes(data.replace(b"s", b"S", 1) if which in ("config", "layer") else data + b"\n")
    assert blob.read_bytes() != data
    with pytest.raises(LabError) as caught:
        seed.seed([], lab, upstream=upstream)
    assert digests[which] in str(caught.value) or "digest" in str(caught.value)
    assert lab.catalog() == []
    assert seed.listed(lab)[0].origin == "absent"


def digest_of_manifest(upstream: Registry, tiny: Image) -> str:
    from labkit.images.debian import architecture
    from labkit.images.oci import Index

    return Index.parse(upstream.manifest(tiny.repository, tiny.digest)[1]).for_platform(architecture()).digest


def test_all_that_the_set_up_has_built_is_seeded_in_seconds_and_a_second_time_at_once(kept: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "storage") as registry:
        first = labkit("images", "seed", "--registry", registry.host, state=kept)
        assert first.returncode == 0, first.stderr
        begin = time.monotonic()
        again = labkit("images", "seed", "--registry", registry.host, state=kept)
        seconds = time.monotonic() - begin
    assert len(again.stdout.splitlines()) == 1 + len(catalogue.IMAGES)
    assert first.stdout.endswith(again.stdout)
    assert "absent" not in again.stdout
    assert seconds < 3  # under a second on a machine that does nothing else


def at_work(state: Path) -> list[str]:
    """Return the command lines that name a directory, those of its own children among them."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(process.read_bytes().replace(b"\0", b" ").decode())
    return [line for line in lines if str(state) in line]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_that_was_killed_leaves_no_image_half_and_is_simply_run_again(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with serving(tmp_path / "storage") as registry:
        argv = [LABKIT, "images", "seed", "busybox", "--registry", registry.host]
        process = subprocess.Popen(argv, env={**os.environ, "LABKIT_STATE": str(state)}, stdout=subprocess.DEVNULL)
        while not list(state.glob("images/unfinished/busybox/*/debian")):
            assert process.poll() is None
            time.sleep(0.01)
        assert at_work(state)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not at_work(state))
        assert str(state) not in Path("/proc/self/mountinfo").read_text()
        assert registry.catalog() == []
        assert labkit("images", "seed", "busybox", "--registry", registry.host, state=state).returncode == 0
        assert registry.tags("library/busybox") == ["latest"]
    assert sorted(each.name.partition("-")[0] for each in (state / "images").iterdir()) == ["busybox", "lock"]


def test_a_full_disk_is_one_line_and_nothing_is_left_half(tmp_path: Path) -> None:
    state = tmp_path / "small"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", state], check=True)
    try:
        with serving(tmp_path / "storage") as registry:
            line = refused(labkit("images", "seed", "busybox", "--registry", registry.host, state=state))
            assert registry.catalog() == []
        assert "no space left on device; cause: " in line
        assert "remedy: free disk space" in line
        assert str(state) in line
        assert [each.name for each in (state / "images").iterdir()] == ["lock"]
    finally:
        subprocess.run(["umount", state], check=True)


def test_where_not_even_debian_can_be_reached_it_says_what_to_do(state: Path, tmp_path: Path) -> None:
    alone = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    argv = [*alone, str(LABKIT), "images", "seed", "busybox", "--storage", str(tmp_path / "storage")]
    done = subprocess.run(argv, env={**os.environ, "LABKIT_STATE": str(state)}, capture_output=True, text=True, timeout=120)
    line = refused(done)
    assert "failed; cause: E: Failed to fetch " in line
    assert "remedy: a stand-in is built from Debian's packages: connect the network once" in line
    assert [each.name for each in (state / "images").iterdir()] == ["lock"]


def test_wrong_words_are_one_line(state: Path, tmp_path: Path) -> None:
    assert "the course has no image 'ngnix'; remedy: did you mean nginx?" in refused(labkit("images", "seed", "ngnix", state=state))
    down = "registry 127.0.0.1:9 cannot be reached; cause: connection refused; remedy: `labkit status`"
    assert down in refused(labkit("images", "list", "--registry", "127.0.0.1:9", state=state))
    assert down in refused(labkit("images", "seed", "--registry", "127.0.0.1:9", state=state))
    two = labkit("images", "list", "--registry", "127.0.0.1:9", "--storage", str(tmp_path), state=state)
    assert "name two places" in refused(two)
    assert not state.exists()


def test_the_storage_of_a_registry_that_does_not_run_is_seeded_and_stays_its_owners(kept: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    os.chown(storage, 12345, 54321)
    done = labkit("images", "seed", "hello-world", "--storage", str(storage), state=kept)
    assert done.returncode == 0, done.stderr
    assert {(path.stat().st_uid, path.stat().st_gid) for path in storage.rglob("*")} == {(12345, 54321)}
    assert "hello-world  latest" in labkit("images", "list", "--storage", str(storage), state=kept).stdout


def test_a_registry_that_falls_silent_while_it_is_asked_counts_as_unreachable(lab: Registry) -> None:
    with pytest.raises(UnreachableError):
        Registry("127.0.0.1:9").ping()
    assert lab.head("library/none", "latest") is None
