"""The box: its key, its catalogue, what is refused before anything is made."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BOX = ROOT / "vagrant/box"


@pytest.fixture(scope="module")
def catalogue() -> ModuleType:
    spec = importlib.util.spec_from_file_location("catalogue", BOX / "catalogue.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def packed(catalogue: ModuleType, tmp_path: Path) -> Path:
    disk = tmp_path / "box.img"
    disk.write_bytes(b"a disk")
    catalogue.pack(tmp_path / "labkit-amd64-libvirt.box", {"provider": "libvirt"}, {"box.img": disk})
    return tmp_path


def test_a_box_is_a_tar_of_its_metadata_a_vagrantfile_and_the_disk_and_names_nobody(packed: Path) -> None:
    with tarfile.open(packed / "labkit-amd64-libvirt.box") as archive:
        assert archive.getnames() == ["metadata.json", "Vagrantfile", "box.img"]
        assert {(member.uid, member.gid, member.uname) for member in archive} == {(0, 0, "")}


def test_the_catalogue_names_each_packed_box_with_its_checksum_at_the_web_space(catalogue: ModuleType, packed: Path) -> None:
    written = catalogue.catalogue(packed, "amd64", "https://example.org/boxes")
    (provider,) = written["versions"][0]["providers"]
    assert provider["url"] == "https://example.org/boxes/labkit-amd64-libvirt.box"
    assert provider["checksum"] == hashlib.sha256((packed / "labkit-amd64-libvirt.box").read_bytes()).hexdigest()
    assert (provider["name"], provider["checksum_type"]) == ("libvirt", "sha256")


def test_a_box_that_was_damaged_keeps_the_checksum_of_the_day_it_was_built(catalogue: ModuleType, packed: Path) -> None:
    before = catalogue.catalogue(packed, "amd64", "file:///x")
    (packed / "labkit-amd64-libvirt.box").write_bytes(b"half")
    after = catalogue.catalogue(packed, "amd64", "file:///x")
    assert json.dumps(before).count("checksum_type") == 1
    assert [version["providers"][0]["checksum"] for version in (*before["versions"], *after["versions"])] == [
        before["versions"][0]["providers"][0]["checksum"]
    ] * 2
    checked = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=packed, capture_output=True)
    assert checked.returncode == 1


def test_the_key_changes_with_the_inputs_and_with_nothing_else(tmp_path: Path) -> None:
    for name in ("vagrant", "labkit/images", "requirements.lock"):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)

    def key(**environment: str) -> str:
        argv, env = [tmp_path / "vagrant/box/key.sh"], {**os.environ, **environment}
        return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout

    first = key()
    (tmp_path / "labkit/lab_9_9.py").write_text("# a lab\n")
    assert key() == first
    assert key(LAB_ARCH="arm64") != first
    with (tmp_path / "vagrant/provision/10-packages.sh").open("a") as step:
        step.write("# one more package\n")
    assert key() != first


def test_a_box_for_a_machine_that_cannot_run_its_programs_is_refused_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [BOX / "build.sh"], env={**os.environ, "LAB_ARCH": "s390x", "LAB_BOX_DIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "the box is built for amd64 and arm64, not for s390x\n"


def test_a_box_without_the_disk_space_for_it_is_refused_in_one_line(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = f"mount -t tmpfs -o size=8M none {small} && exec {BOX / 'build.sh'}"
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(argv, env={**os.environ, "LAB_BOX_DIR": str(small)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "building the box needs 12000 MiB, 8 MiB are free" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_accelerator_is_what_is_asked_for_and_a_word_that_is_none_is_refused() -> None:
    def asked(word: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([ROOT / "vagrant/accelerator.sh"], env={**os.environ, "LAB_ACCEL": word}, capture_output=True, text=True)

    assert (asked("tcg").stdout, asked("kvm").stdout) == ("tcg\n", "kvm\n")
    assert asked("fast").stderr == "LAB_ACCEL=fast is no accelerator; remedy: kvm, tcg or auto\n"


def test_lima_runs_the_same_set_up_and_opens_nothing_but_127_0_0_1() -> None:
    lima = yaml.safe_load((ROOT / "vagrant/lima.yaml").read_text())
    assert [step["mode"] for step in lima["provision"]] == ["system"]
    assert "/opt/labkit/vagrant/provision/setup.sh box" in lima["provision"][0]["script"]
    assert [(forward["hostIP"], forward["guestIP"]) for forward in lima["portForwards"]] == [("127.0.0.1", "127.0.0.1")]
