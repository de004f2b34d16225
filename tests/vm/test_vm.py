"""The virtual machine: its box, its boot, JupyterLab in it, and that nothing of it stays. It is the tests' own, beside a student's."""

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VM = ROOT / "vagrant/vm.sh"
IMAGES = Path("/var/lib/libvirt/images")
BOOT_SECONDS = 900
OTHERS_DECIDE = ("crio", "execs")
"""Checks that may be amber: no Debian has CRI-O, and the process connector is a choice of who builds the kernel."""


@dataclass(frozen=True)
class VirtualMachine:
    environment: dict[str, str]
    said: str

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        argv = ["vagrant", "ssh", "--command", command, "--", "-T"]
        return subprocess.run(argv, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=BOOT_SECONDS)

    @property
    def url(self) -> str:
        return re.findall(r"JupyterLab: (http://\S+)", self.said)[-1]


def around() -> dict[str, object]:
    """Return what a virtual machine could leave on this host."""
    names = ("libvirtd", "virtlogd")
    daemons = [subprocess.run(["pgrep", "--exact", name], capture_output=True, text=True).stdout for name in names]
    ours = "guest=labkit-test|libvirt/dnsmasq/labkit-test"
    guests = subprocess.run(["pgrep", "--full", ours], capture_output=True, text=True).stdout.split()
    links = [link["ifname"] for link in json.loads(subprocess.run(["ip", "-json", "link"], check=True, capture_output=True).stdout)]
    cables = [name for name in links if name.startswith(("virbr", "vnet"))]
    files = [*IMAGES.glob("*"), *Path("/etc/libvirt").rglob("labkit-test*")]
    return {"daemons": daemons, "guests": guests, "links": cables, "files": sorted(files)}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = Path("/var/tmp/labkit-test-vagrant")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)
    own = {
        "VAGRANT_HOME": str(home),
        "VAGRANT_DOTFILE_PATH": str(tmp_path_factory.mktemp("vagrant")),
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
        "LAB_NAME": "labkit-test",
        "LAB_NETWORK": "labkit-test",
        "LAB_NETWORK_ADDRESS": "192.168.142.0/24",
        "LAB_REPORTS": str(tmp_path_factory.mktemp("reports")),
        "LAB_PORT": "18888",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAB_") or name == "LAB_BOX_DIR"}
    return {**kept, **own}


@pytest.fixture(scope="module")
def machine(environment: dict[str, str]) -> Iterator[VirtualMachine]:
    """Boot a machine whose first port is taken; destroy it, and see that the host is as it was."""
    before = around()
    try:
        with socket.create_server(("127.0.0.1", 18888)):
            up = subprocess.run([VM, "up"], env=environment, capture_output=True, text=True, timeout=2 * BOOT_SECONDS)
        assert up.returncode == 0, up.stdout[-3000:] + up.stderr[-3000:]
        yield VirtualMachine(environment, up.stdout)
    finally:
        gone = subprocess.run([VM, "destroy"], env=environment, capture_output=True, text=True, timeout=BOOT_SECONDS)
        for image in set(IMAGES.glob("labkit_vagrant_box_image_*")) - set(before["files"]):  # type: ignore[call-overload]
            image.unlink()  # the disk of the box, which stays for the next machine otherwise
        shutil.rmtree(environment["VAGRANT_HOME"])
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert around() == before


def test_up_prints_the_url_of_the_port_that_is_free_and_it_answers(machine: VirtualMachine) -> None:
    assert machine.url.startswith("http://127.0.0.1:18889/lab?token=")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    status = machine.url.replace("/lab?", "/api/status?")
    with direct.open(status, timeout=120) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError, match="403"):
        direct.open(status.split("?")[0], timeout=120)


def test_nothing_but_the_forwarded_port_reaches_jupyterlab(machine: VirtualMachine) -> None:
    listening = machine.run("ss --no-header --listening --tcp --numeric 'sport = :8888'").stdout.split()
    assert listening[3] == "127.0.0.1:8888"
    forwarded = subprocess.run(["ss", "-Hltn", "sport = :18889"], check=True, capture_output=True, text=True).stdout.split()
    assert forwarded[3] == "127.0.0.1:18889"


def test_the_services_come_up_and_the_doctor_sees_nothing_but_green_in_the_machine(machine: VirtualMachine) -> None:
    up = machine.run("sudo /opt/labkit/.venv/bin/labkit up")
    assert up.returncode == 0, up.stdout + up.stderr
    report = json.loads(machine.run("sudo /opt/labkit/.venv/bin/labkit doctor --json").stdout)
    assert [check for check in report["checks"] if check["colour"] == "red"] == []
    assert [check for check in report["checks"] if check["colour"] != "green" and check["id"] not in OTHERS_DECIDE] == []


def test_a_notebook_prints_there_what_is_stored(machine: VirtualMachine) -> None:
    done = machine.run("sudo /opt/labkit/.venv/bin/labkit validate 2.3")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_up_again_changes_nothing_and_prints_the_same_url(machine: VirtualMachine) -> None:
    again = subprocess.run([VM, "up"], env=machine.environment, capture_output=True, text=True, timeout=BOOT_SECONDS)
    assert again.returncode == 0, again.stdout + again.stderr
    assert machine.url in again.stdout
    assert " done in " not in again.stdout


def test_vagrant_up_without_a_box_says_in_one_line_what_to_do(environment: dict[str, str], tmp_path: Path) -> None:
    own = {**environment, "LAB_BOX_DIR": str(tmp_path), "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot"), "LAB_ACCEL": "tcg"}
    done = subprocess.run(["vagrant", "up"], cwd=ROOT, env=own, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "there is no box at" in done.stderr
    assert "set LAB_BOX_URL" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_damaged_box_is_refused_in_one_line_and_nothing_is_made(environment: dict[str, str], tmp_path: Path) -> None:
    key = subprocess.run([ROOT / "vagrant/box/key.sh"], check=True, capture_output=True, text=True).stdout.strip()
    box = tmp_path / key
    box.mkdir()
    packed = box / "labkit-amd64-libvirt.box"
    packed.write_bytes(b"whole")
    own = {**environment, "LAB_BOX_DIR": str(tmp_path), "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot")}
    subprocess.run([ROOT / "vagrant/box/catalogue.py", box], check=True)
    packed.write_bytes(b"half")
    refused = subprocess.run([VM, "box"], env=own, capture_output=True, text=True, timeout=60)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "is damaged" in refused.stderr
    assert f"remedy: rm -r {box}" in refused.stderr
    packed.unlink()
    assert "is damaged" in subprocess.run([VM, "box"], env=own, capture_output=True, text=True, timeout=60).stderr


@pytest.mark.parametrize(("name", "value", "line"), [("LAB_CPUS", "two", "LAB_CPUS=two is no number"), ("LAB_MEMORY", "64", "too small")])
def test_a_setting_that_makes_no_sense_is_refused(environment: dict[str, str], name: str, value: str, line: str) -> None:
    argv, own = ["vagrant", "validate"], {**environment, name: value, "LAB_ACCEL": "tcg"}
    assert line in subprocess.run(argv, cwd=ROOT, env=own, capture_output=True, text=True, timeout=60).stderr
