"""The commands of rkt that need no pod to run: columns, words, exit statuses."""

import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labkit.appc import door, listing
from labkit.appc.command import main
from labkit.appc.listing import PodView, listed, status
from labkit.appc.net_info import NetInfo
from labkit.appc.pod import Pod, State
from labkit.appc.pod_manifest import VERSION, PodManifest, RuntimeApp
from labkit.appc.pods import Pods
from labkit.appc.prepare import MUTABLE
from labkit.appc.types import ImageID, serialized

NGINX = RuntimeApp("nginx", ImageID("sha512-" + "a" * 64), "registry-1.docker.io/library/nginx", (("version", "latest"),))
BOX = RuntimeApp("bzbx", ImageID("sha512-" + "b" * 64), "example.com/box")
NET = NetInfo("default", "net/99-default.conf", "eth0", "172.16.28.2", "255.255.255.0")


def view(state: State = State.RUNNING, **other: object) -> PodView:
    given = {
        "apps": (NGINX, BOX), "created": 1000.0, "started": 1001.0, "networks": (NET,), "pid": 4242, "exit_codes": {}, **other,
    }  # fmt: skip
    return PodView("bf2b8daa-0000-4000-8000-000000000000", state, **given)  # type: ignore[arg-type]


def test_a_pod_has_a_line_and_each_further_app_one_more() -> None:
    head, first, second = listed([view()], now=1062).split("\n")
    assert head.split("\t")[:2] == ["UUID", ""]
    assert [cell for cell in first.split("\t") if cell] == [
        "bf2b8daa", "nginx", "registry-1.docker.io/library/nginx:latest", "running", "1 minute ago", "1 minute ago",
        "default:ip4=172.16.28.2",
    ]  # fmt: skip
    assert [cell for cell in second.split("\t") if cell] == ["bzbx", "example.com/box"]
    assert second.startswith("\t\t")


def test_full_shows_ids_and_times() -> None:
    text = listed([view()], full=True)
    assert "IMAGE ID" in text
    assert "bf2b8daa-0000-4000-8000-000000000000" in text
    assert "sha512-aaaaaaaaaaaa\t" in text
    assert "1970-01-01 " in text
    assert not listed([view()], legend=False).startswith("UUID")


def test_a_prepare_that_failed_has_nothing_to_show() -> None:
    row = listed([view(State.ABORTED, apps=(), created=None, started=None, networks=())], legend=False)
    assert [cell for cell in row.split("\t") if cell] == ["bf2b8daa", "-", "-", "aborted prepare", "a long while ago"]


def test_status_has_a_line_a_fact() -> None:
    text = status(view(State.EXITED, exit_codes={"nginx": 0, "bzbx": 3}))
    assert [line.partition("=")[0] for line in text.split("\n")] == [
        "state", "created", "started", "networks", "pid", "exited", "app-bzbx", "app-nginx",
    ]  # fmt: skip
    assert {"state=exited", "networks=default:ip4=172.16.28.2", "pid=4242", "exited=true", "app-bzbx=3"} <= set(text.split("\n"))
    assert "exited=false" in status(view())


def test_status_of_a_prepared_pod_is_its_state_and_its_age() -> None:
    text = status(view(State.PREPARED, started=None, networks=(), pid=None))
    assert [line.partition("=")[0] for line in text.split("\n")] == ["state", "created"]


def made(data: Path, place: str) -> Pod:
    pod = Pods(data).create()
    pod.move(place)
    pod.write("pod", serialized(PodManifest((NGINX,), annotations=((MUTABLE, "false"),), ac_version=VERSION).record()))
    pod.unlock()
    return pod


@pytest.fixture
def rkt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    monkeypatch.setenv("RKT_DIR", str(tmp_path))
    monkeypatch.delenv("LABKIT_RKT", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(words)
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def test_version_says_first_what_it_is(rkt) -> None:
    code, out, _ = rkt("version")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("labkit.appc: ")
    assert [line.partition(":")[0] for line in lines[1:]] == ["rkt Version", "appc Version", "Go Version", "Go OS/Arch", "Features"]
    assert lines[1] == "rkt Version: 1.30.0"


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["frobnicate"], 254, 'rkt: unknown command "frobnicate"\n'),
        (["list", "--frobnicate"], 254, "list: unknown flag: --frobnicate\n"),
        (["run", "--frobnicate"], 254, "run: unknown flag: --frobnicate\n"),
        (["run"], 254, "run: must provide at least one image\n"),
        (["run", "--exec"], 254, "run: flag needs an argument: --exec\n"),
        (["run-prepared"], 254, "run-prepared: must provide the UUID of a prepared pod\n"),
        (["status", "dead"], 254, 'status: problem retrieving pod: no matches found for "dead"\n'),
        (["cat-manifest", "dead"], 254, 'cat-manifest: problem retrieving pod: no matches found for "dead"\n'),
        (["rm", "dead"], 254, 'rm: no matches found for "dead"\nrm: failed to remove one or more pods\n'),
        (["gc", "--grace-period=soon"], 254, 'gc: invalid duration "soon": such as 30m0s\n'),
        (["run", "--net=host", "--port=80-tcp:8080", "a"], 254, "run: --port flag does not work with 'host' networking\n"),
        (["run", "--net=none", "--port=80-tcp:8080", "a"], 254, "run: --port flag does not work with 'none' networking\n"),
        (["run", "--insecure-options=everything", "a"], 254, 'run: invalid argument "everything" for --insecure-options'),
    ],
)
def test_what_cannot_be_done_is_one_line_and_254(rkt, words: list[str], code: int, error: str) -> None:
    ended, out, err = rkt(*words)
    assert (ended, out) == (code, "")
    assert err.startswith(error)


def test_rkt_alone_prints_its_help(rkt) -> None:
    code, out, _ = rkt()
    assert code == 2
    for command in ("cat-manifest", "enter", "gc", "list", "prepare", "rm", "run", "run-prepared", "status", "stop", "version"):
        assert f"\n  {command} " in out


def test_the_help_of_run_lists_its_options(rkt) -> None:
    code, out, _ = rkt("run", "--help")
    assert code == 0
    assert "--volume" in out
    assert "Usage: rkt run [OPTIONS] IMAGE" in out


def test_pods_are_listed(rkt, tmp_path: Path) -> None:
    pod = made(tmp_path, "prepared")
    _, out, _ = rkt("list", "--no-legend")
    assert [cell for cell in out.rstrip("\n").split("\t") if cell] == [
        pod.uuid[:8], "nginx", "registry-1.docker.io/library/nginx:latest", "prepared", "now",
    ]  # fmt: skip
    record = json.loads(rkt("list", "--format=json")[1])
    assert (record[0]["name"], record[0]["state"], record[0]["app_names"]) == (pod.uuid, "prepared", ["nginx"])
    assert json.loads(rkt("--dir", "/nonexistent", "list", "--format=json")[1]) == []


def test_the_manifest_is_that_of_the_pod(rkt, tmp_path: Path) -> None:
    pod = made(tmp_path, "run")
    _, out, _ = rkt("cat-manifest", pod.uuid[:8])
    assert PodManifest.parse(out.encode()) == pod.manifest
    assert out.startswith('{\n\t"acVersion": "1.30.0",\n\t"acKind": "PodManifest",\n')
    assert len(rkt("cat-manifest", "--pretty-print=false", pod.uuid)[1].splitlines()) == 1


def test_a_pod_that_runs_is_not_removed(rkt, tmp_path: Path) -> None:
    pod = made(tmp_path, "run")
    held = os.open(pod.directory, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        code, _, err = rkt("rm", pod.uuid)
    finally:
        os.close(held)
    assert (code, err) == (254, f'rm: pod "{pod.uuid}" is currently running\nrm: failed to remove one or more pods\n')


def test_a_pod_that_has_exited_is_stopped_already(rkt, tmp_path: Path) -> None:
    pod = made(tmp_path, "run")
    assert rkt("stop", pod.uuid) == (0, "", f'stop: pod "{pod.uuid}" is already stopped\n')
    code, _, err = rkt("enter", pod.uuid, "sh")
    assert (code, "isn't currently running" in err) == (254, True)


def test_only_a_prepared_pod_can_be_run(rkt, tmp_path: Path) -> None:
    pod = made(tmp_path, "run")
    assert rkt("run-prepared", pod.uuid)[::2] == (254, f'run-prepared: pod "{pod.uuid}" is not prepared\n')


def test_a_pod_that_goes_while_it_is_listed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Pod(tmp_path, "bf2b8daa-0000-4000-8000-000000000000")
    assert listing.views([gone]) == ()


def test_a_real_rkt_is_run_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []

    def execve(path: str, argv: list[str], environment: dict[str, str]) -> None:
        called.extend([path, argv, environment])
        raise SystemExit(0)

    monkeypatch.setenv("LABKIT_RKT", "/opt/rkt/rkt")
    monkeypatch.setenv("RKT_DIR", "/lab/rkt")
    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(SystemExit):
        main(["list"])
    path, argv, environment = called
    assert (path, argv) == ("/opt/rkt/rkt", ["/opt/rkt/rkt", "--dir=/lab/rkt", "list"])
    assert "LABKIT_RKT" not in environment  # a program that leads back here ends in this executor, not in a circle


def test_a_real_rkt_that_cannot_be_run_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "rkt").write_text("no program")
    for real, why in ((tmp_path / "nowhere", "No such file or directory"), (tmp_path / "rkt", "Permission denied")):
        monkeypatch.setenv("LABKIT_RKT", str(real))
        with pytest.raises(SystemExit) as end:
            main(["version"])
        assert (end.value.code, capsys.readouterr().err) == (254, f"rkt: LABKIT_RKT={real}: {why}\n")


def test_the_door_of_a_lab_knows_its_directories(tmp_path: Path) -> None:
    made(tmp_path / "lab's rkt", "prepared")
    program = door.write(tmp_path, tmp_path / "lab's rkt", tmp_path / "etc")
    listed = subprocess.run([program, "list", "--no-legend"], capture_output=True, text=True, check=False, env={}, cwd="/", timeout=60)
    assert "prepared" in listed.stdout, listed


def test_the_door_of_a_lab_may_lead_to_a_real_rkt(tmp_path: Path) -> None:
    program = door.write(tmp_path, tmp_path / "rkt", tmp_path / "etc", door.real("/bin/echo"))
    said = subprocess.run([program, "run", "a b"], capture_output=True, text=True, check=True, env={}, timeout=60)
    assert said.stdout == f"--dir={tmp_path}/rkt --local-config={tmp_path}/etc run a b\n"
