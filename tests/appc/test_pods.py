"""Pods by the command `rkt`, from an ACI to the last trace of them."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pexpect
import pytest
from trial_pods import AFTER, FIRST, Trial, said, until

from labkit import ledger
from labkit.appc import aci, claims
from labkit.appc.app import App, MountPoint, Port
from labkit.appc.image_manifest import ImageManifest
from labkit.appc.pod import Pod, State
from labkit.appc.pods import Pods
from labkit.kernel.cgroups import hierarchies

APP = App(
    exec=("/bin/sh", "-c", "echo up; exec sleep 600"),
    user="0",
    group="0",
    mount_points=(MountPoint("data", "/data"),),
    ports=(Port("80-tcp", "tcp", 80),),
)
WEB = "mkdir -p /www; echo from the pod > /www/index.html; exec httpd -f -p 80 -h /www"


@pytest.fixture(scope="module")
def image(own_state: Path) -> Path:
    """An ACI of a busybox, `example.com/box:1`, whose app sleeps."""
    file = own_state / "box.aci"
    manifest = ImageManifest("example.com/box", labels=(("version", "1"), ("os", "linux"), ("arch", "amd64")), app=APP)
    aci.build(manifest, Trial(own_state / "box").tree, file)
    return file


class Rkt:
    """The command, on a directory of its own."""

    def __init__(self, place: Path, image: Path) -> None:
        self.data, self.local, self.image = place / "rkt", place / "etc", str(image)
        self.pods = Pods(self.data)

    def argv(self, *words: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "labkit.appc",
            f"--dir={self.data}",
            f"--local-config={self.local}",
            "--insecure-options=image",
            *words,
        ]

    def __call__(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.argv(*words), capture_output=True, text=True, timeout=90, stdin=DEVNULL, check=False)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def sh(self, script: str, *options: str, net: str = "none", code: int = 0) -> list[str]:
        """Run a shell script in a pod of its own, and return its lines."""
        return said(self("run", f"--net={net}", *options, self.image, "--exec", "/bin/sh", "--", "-c", script, code=code).stdout)

    def start(self, *words: str) -> tuple["subprocess.Popen[str]", Pod]:
        """Start a pod and return its supervisor once its apps run."""
        before = {pod.uuid for pod in self.pods.all()}
        process = subprocess.Popen(self.argv("run", *words), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, text=True)

        def up() -> bool:
            new = [pod for pod in self.pods.all() if pod.uuid not in before and pod.state is State.RUNNING]
            return process.poll() is not None or any(all(pod.read(f"appsinfo/{app.name}/pid") for app in pod.manifest.apps) for pod in new)

        until(up)
        assert process.poll() is None, process.communicate()
        return process, next(pod for pod in self.pods.all() if pod.uuid not in before)

    def rows(self, *options: str) -> list[list[str]]:
        """Return the cells of `rkt list`."""
        return [[cell for cell in line.split("\t") if cell] for line in self("list", "--no-legend", *options).stdout.splitlines()]


@pytest.fixture
def rkt(own_state: Path, image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rkt]:
    command = Rkt(own_state / tmp_path_factory.mktemp("place").name, image)
    yield command
    claims.end_all(command.data)


def traces(pod: Pod) -> list[str]:
    """Return what the kernel still has of a pod: cgroups, mounts, a network namespace, rules of NAT, processes."""
    found = [str(path) for one in hierarchies().mounted for path in one.path.rglob(f"*{pod.uuid}*")]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if pod.uuid in line]
    found += [str(path) for path in Path("/run/netns").glob(f"*{pod.uuid}*")]
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    found += [line for line in rules.splitlines() if pod.uuid[:8] in line]
    found += [str(path) for path in (pod.data / "networks").rglob(f"*{pod.uuid}*") if "locks" not in path.parts]
    return found


# --- one pod, from the first line to the last ---


def test_a_pod_runs_to_its_end_and_is_removed(rkt: Rkt) -> None:
    assert rkt.sh("echo hello; exit 3", code=3) == ["hello"]
    (pod,) = rkt.pods.all()
    row = rkt.rows()[0]
    assert row[:4] == [pod.uuid[:8], "box", "example.com/box:1", "exited"]
    assert re.fullmatch(r"now|\d+ seconds? ago", row[4])
    status = rkt("status", pod.uuid[:8]).stdout.splitlines()
    assert [line.partition("=")[0] for line in status] == ["state", "created", "started", "pid", "exited", "app-box"]
    assert {"state=exited", "exited=true", "app-box=3"} <= set(status)
    assert rkt("rm", pod.uuid).stdout == f'"{pod.uuid}"\n'
    assert (rkt.rows(), traces(pod)) == ([], [])


def test_the_code_is_that_of_the_app_that_fails(rkt: Rkt) -> None:
    words = [
        "--net=none",
        rkt.image,
        "--name=one",
        "--exec=/bin/sh",
        "--",
        "-c",
        f"{FIRST}exit 0",
        "---",
        rkt.image,
        "--name=two",
        "--exec=/bin/sh",
        "--",
        "-c",
        f"{AFTER}exit 3",
    ]
    rkt("run", *words, code=3)
    rows = rkt.rows()
    assert [row[:3] for row in rows] == [[rows[0][0], "one", "example.com/box:1"], ["two", "example.com/box:1"]]
    assert {"app-one=0", "app-two=3"} <= set(rkt("status", rows[0][0]).stdout.splitlines())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--net=nosuchnet"], "stage1: failed to setup network: networks not found: nosuchnet"),
        (["--port=nope:80"], 'run: error setting up stage0: error: port name "nope" could not be found in any apps'),
        (["--volume=data,kind=host,source=/nonexistent", "--net=none"], "/nonexistent"),
    ],
)
def test_what_cannot_be_set_up_is_told_and_leaves_nothing(rkt: Rkt, words: list[str], error: str) -> None:
    done = rkt("run", *words, rkt.image, code=254)
    assert error in done.stderr
    assert "Traceback" not in done.stderr
    for pod in rkt.pods.all():
        assert traces(pod) == []


def test_a_program_that_is_not_there_is_203(rkt: Rkt) -> None:
    rkt("run", "--net=none", rkt.image, "--exec=/bin/nothing", code=203)


def test_a_pod_is_prepared_first_and_run_later(rkt: Rkt) -> None:
    uuid = rkt("prepare", "--quiet", rkt.image, "--exec=/bin/echo", "--", "later").stdout.strip()
    assert rkt.rows()[0][:4] == [uuid[:8], "box", "example.com/box:1", "prepared"]
    assert [line.partition("=")[0] for line in rkt("status", uuid).stdout.splitlines()] == ["state", "created"]
    assert json.loads(rkt("cat-manifest", uuid).stdout)["apps"][0]["app"]["exec"] == ["/bin/echo", "later"]
    assert said(rkt("run-prepared", "--net=none", "--hostname=box", uuid[:8]).stdout) == ["later"]
    assert "is not prepared" in rkt("run-prepared", uuid, code=254).stderr


# --- a pod that runs ---


def test_a_running_pod_is_seen_entered_and_stopped(rkt: Rkt, tmp_path: Path) -> None:
    saved = tmp_path / "uuid"
    process, pod = rkt.start(f"--uuid-file-save={saved}", rkt.image, rkt.image, "--name=other", "--environment=WHO=other")
    assert saved.read_text() == pod.uuid
    row = rkt.rows()[0]
    assert (row[3], row[-1]) == ("running", "default:ip4=172.16.28.2")
    assert (
        rkt("enter", "--app=other", pod.uuid, "/bin/sh", "-c", 'echo "$WHO"; hostname; exit 5', code=5).stdout == f"other\nrkt-{pod.uuid}\n"
    )
    assert 'specify app using "rkt enter --app= ..."' in rkt("enter", pod.uuid, "sh", code=254).stderr
    rkt("enter", "--app=zz", pod.uuid, "sh", code=6)
    assert f'pod "{pod.uuid}" is currently running' in rkt("rm", pod.uuid, code=254).stderr
    assert rkt("gc", "--grace-period=0s").stdout == ""
    assert rkt("stop", f"--uuid-file={saved}").stdout == f'"{pod.uuid}"\n'
    process.communicate(timeout=60)
    assert pod.state is State.EXITED
    assert f'pod "{pod.uuid}" is already stopped' in rkt("stop", pod.uuid).stderr
    assert "isn't currently running" in rkt("enter", "--app=box", pod.uuid, "sh", code=254).stderr
    rkt("rm", pod.uuid)
    assert traces(pod) == []


def test_a_terminal_is_the_apps(rkt: Rkt) -> None:
    argv = rkt.argv("run", "--interactive", "--net=none", rkt.image, "--exec", "/bin/sh")
    with pexpect.spawn(argv[0], argv[1:], encoding="utf-8", timeout=60) as shell:
        shell.expect("# ")
        shell.sendline("tty; ls /sys/class/net; exit 4")
        shell.expect("/dev/")
        shell.expect("lo")
        shell.expect(pexpect.EOF)
        shell.close()
        assert shell.exitstatus == 4


def test_what_is_typed_before_the_app_is_there_is_the_apps(rkt: Rkt) -> None:
    argv = rkt.argv("run", "--interactive", "--net=none", rkt.image, "--exec", "/bin/sh")
    with pexpect.spawn(argv[0], argv[1:], encoding="utf-8", timeout=60) as shell:
        shell.sendline("exit 6")
        shell.expect(pexpect.EOF)
        shell.close()
        assert shell.exitstatus == 6


def test_a_port_of_the_host_leads_into_the_pod(rkt: Rkt) -> None:
    process, pod = rkt.start("--port=80-tcp:8080", rkt.image, "--exec=/bin/sh", "--", "-c", WEB)
    answer = ["wget", "-q", "-O", "-", "http://127.0.0.1:8080"]
    until(lambda: subprocess.run(answer, capture_output=True, text=True, check=False).stdout == "from the pod\n")
    process.kill()
    process.communicate()
    until(lambda: pod.state is State.EXITED)
    assert traces(pod) != []
    rkt("gc", "--grace-period=0s")
    assert (rkt.pods.all(), traces(pod)) == ((), [])


# --- storage ---


def test_what_a_pod_writes_into_a_volume_is_on_the_host(rkt: Rkt, tmp_path: Path) -> None:
    (tmp_path / "host-file").write_text("")
    volume = [f"--volume=rkthostvol,kind=host,source={tmp_path}", "--mount", "volume=rkthostvol,target=/data/app1"]
    assert rkt.sh("cd /data/app1; echo pod data > host-file; touch pod-file; ls", *volume) == ["host-file", "pod-file"]
    assert (tmp_path / "host-file").read_text() == "pod data\n"


def test_a_volume_that_is_read_only_refuses(rkt: Rkt, tmp_path: Path) -> None:
    (tmp_path / "host-file-ro").write_text("host read-only data\n")
    volume = [f"--volume=ro,kind=host,source={tmp_path},readOnly=true", "--mount=volume=ro,target=/data/app2"]
    assert rkt.sh("cd /data/app2; cat *; touch pod-file || echo refused", *volume)[0] == "host read-only data"
    assert os.listdir(tmp_path) == ["host-file-ro"]


def test_a_mount_point_without_volume_gets_an_empty_one(rkt: Rkt) -> None:
    done = rkt("run", "--net=none", rkt.image, "--exec=/bin/sh", "--", "-c", "touch /data/x && grep -c ' /data ' /proc/self/mountinfo")
    assert 'stage1: warning: no volume specified for mount point "data", implicitly creating an "empty" volume' in done.stderr
    assert said(done.stdout) == ["1"]


# --- images ---


def test_an_image_is_run_by_its_name_once_it_is_in_the_store_also_while_it_is_removed(rkt: Rkt) -> None:
    rkt("fetch", rkt.image)
    process, pod = rkt.start("--net=none", "example.com/box:1")
    rkt("image", "rm", "example.com/box:1")
    rkt("image", "gc", "--grace-period=0s")
    assert rkt("enter", pod.uuid, "/bin/busybox", "echo", "alive").stdout == "alive\n"
    rkt("stop", "--force", pod.uuid)
    process.communicate(timeout=60)
    rkt("gc", "--grace-period=0s")
    assert traces(pod) == []


# --- what is left when somebody is killed ---


@pytest.mark.parametrize("seed", range(6))
def test_a_run_that_is_killed_at_any_moment_leaves_what_gc_collects_whole(rkt: Rkt, seed: int) -> None:
    rkt("fetch", rkt.image)
    process = subprocess.Popen(rkt.argv("run", "--port=80-tcp:8080", "example.com/box:1"), stdout=DEVNULL, stderr=DEVNULL)
    time.sleep(random.Random(seed).uniform(0.4, 3.5))  # no state is waited for: every moment counts
    process.send_signal(signal.SIGKILL)
    process.wait()
    pods = rkt.pods.all()
    until(lambda: all(pod.state not in (State.RUNNING, State.PREPARING) for pod in pods))
    claims.end_all(rkt.data)  # an embryo would wait for a minute else
    left = [pod.uuid for pod in rkt.pods.all() if pod.state is not State.EMBRYO]
    assert (left, [trace for pod in pods for trace in traces(pod)]) == ([], [])


def test_the_claim_of_a_lab_ends_its_pods_and_removes_them(rkt: Rkt) -> None:
    with ledger.owned_by("8.2"):
        claims.claim(rkt.data)
        process, pod = rkt.start(rkt.image)
        ledger.undo("8.2")
    process.communicate(timeout=60)
    assert (rkt.pods.all(), traces(pod), ledger.live("8.2")) == ((), [], [])
