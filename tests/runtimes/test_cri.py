"""The client of the CRI against a real containerd: what it asks for is read back from the kernel."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pods
import pytest

from labkit import ledger, runtimes, trace
from labkit.errors import LabError
from labkit.host.services import Places
from labkit.runtimes import Runtime
from labkit.runtimes.cri import CallError, Client, logs

Fields = dict[str, Any]

IMAGE = "docker.io/library/busybox:latest"
LOOP = 'trap "exit 4" TERM; while :; do sleep 0.1; done'


@pytest.fixture
def label() -> dict[str, str]:
    return {pods.LABEL: uuid.uuid4().hex}


@pytest.fixture
def client(services: Places, label: dict[str, str]) -> Iterator[Client]:
    with Client(services.containerd) as one:
        one.pull(IMAGE)
        yield one
        pods.remove_all(one, label)


def container(label: dict[str, str], script: str, image: str = IMAGE) -> Fields:
    return {
        "metadata": {"name": "main"},
        "image": {"image": image},
        "command": ["sh", "-c", script],
        "envs": [{"key": "COLOUR", "value": "green"}],
        "labels": label,
        "log_path": "main.log",
        "linux": {**pods.OWN_PIDS, "resources": {"memory_limit_in_bytes": 64 << 20, "oom_score_adj": 500}},
    }


def wait_for(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_server_says_who_it_is_and_that_it_is_ready(client: Client):
    told = client.version()
    assert (told["runtime_name"], told["runtime_api_version"]) == ("containerd", "v1")
    assert told["runtime_version"] in subprocess.run(["containerd", "--version"], capture_output=True, text=True).stdout
    assert {name: each["status"] for name, each in client.conditions().items()} == {"RuntimeReady": True, "NetworkReady": True}


def test_a_pod_from_its_sandbox_to_its_removal(client: Client, label: dict[str, str], tmp_path: Path):
    config = pods.pod(label, tmp_path)
    sandbox = client.run_pod(config)
    made = client.create(sandbox, container(label, f"echo begun; echo $COLOUR >&2; {LOOP}"), config)
    assert client.container(made)["state"] == "CONTAINER_CREATED"
    client.start(made)
    there = client.container(made)
    pid = there["info"]["pid"]
    assert there["state"] == "CONTAINER_RUNNING"
    assert Path(f"/proc/{pid}/root/bin/busybox").exists()
    assert f"/{pods.CGROUP}/{made}" in Path(f"/proc/{pid}/cgroup").read_text()
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
    pause = client.pod(sandbox)
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{pause['info']['pid']}/ns/net")
    assert os.readlink(f"/proc/{pid}/ns/pid") != os.readlink(f"/proc/{pause['info']['pid']}/ns/pid")
    done = client.exec(made, ["sh", "-c", "hostname; ip -4 address show eth0; echo oops >&2; exit 3"])
    assert (done.status, done.stdout.split("\n")[0], done.stderr) == (3, "pod", "oops\n")
    assert pause["network"]["ip"] in done.stdout
    assert int(client.stats(made)["memory"]["usage_bytes"]["value"]) > 0
    assert [one["id"] for one in client.containers(**label)] == [made]
    assert [one["id"] for one in client.pods(**label)] == [sandbox]
    client.stop(made)
    assert (client.container(made)["state"], client.container(made)["exit_code"]) == ("CONTAINER_EXITED", 4)
    assert {(line.stream, line.text) for line in logs.read(tmp_path / "main.log")} == {("stdout", "begun"), ("stderr", "green")}
    client.remove(made)
    client.stop_pod(sandbox)
    assert client.pod(sandbox)["state"] == "SANDBOX_NOTREADY"
    client.remove_pod(sandbox)
    client.remove_pod(sandbox)
    assert client.pods(**label) == client.containers(**label) == []


@pytest.mark.parametrize(("handler", "state"), [("", "state.json"), ("runc", "state.json"), ("crun", "status")])
def test_a_handler_is_a_plug(client: Client, label: dict[str, str], tmp_path: Path, handler: str, state: str):
    """Each runtime keeps a file of its own about a container that it has made, below the same directory."""
    config = pods.pod(label, tmp_path)
    sandbox = client.run_pod(config, handler)
    made = client.create(sandbox, container(label, LOOP), config)
    client.start(made)
    assert client.pods(**label)[0]["runtime_handler"] == handler
    kept = {path.name for path in Path("/run/containerd/runc/k8s.io", made).iterdir()}
    assert kept & {"state.json", "status"} == {state}
    assert client.exec(made, ["hostname"]).stdout == "pod\n"


def test_a_handler_that_is_not_there_is_told_in_the_servers_words(client: Client, label: dict[str, str], tmp_path: Path):
    with pytest.raises(CallError, match=r'RunPodSandbox: \w+: .*no runtime for "kata" is configured'):
        client.run_pod(pods.pod(label, tmp_path), "kata")


def test_ten_pods_at_once_have_ten_addresses(client: Client, label: dict[str, str], tmp_path: Path):
    def whole(number: int) -> tuple[str, str]:
        config = pods.pod(label, tmp_path / str(number), f"pod-{number}")
        sandbox = client.run_pod(config)
        made = client.create(sandbox, container(label, LOOP), config)
        client.start(made)
        return client.exec(made, ["hostname"]).stdout.strip(), client.pod(sandbox)["network"]["ip"]

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(whole, range(10)))
        assert [name for name, _ in found] == [f"pod-{number}" for number in range(10)]
        assert len({address for _, address in found}) == 10
        assert len(client.pods(**label)) == 10
        list(pool.map(client.stop_pod, [one["id"] for one in client.pods(**label)]))
    assert {one["state"] for one in client.containers(**label)} == {"CONTAINER_EXITED"}


def test_an_image_that_is_not_there_is_told_in_the_servers_words(client: Client, label: dict[str, str], tmp_path: Path):
    assert client.image("docker.io/library/nosuch:1") is None
    with pytest.raises(CallError, match=r"containerd\.sock: PullImage: \w+: .*library/nosuch"):
        client.pull("docker.io/library/nosuch:1")
    with pytest.raises(CallError, match=r"PullImage: .*invalid reference format"):
        client.pull("Not An Image")
    config = pods.pod(label, tmp_path)
    sandbox = client.run_pod(config)
    with pytest.raises(CallError, match=r"CreateContainer: NOT_FOUND: .*library/nosuch"):
        client.create(sandbox, container(label, LOOP, "docker.io/library/nosuch:1"), config)
    assert client.containers(**label) == []


def test_a_container_that_exits_has_its_code_its_reason_and_its_log(client: Client, label: dict[str, str], tmp_path: Path):
    config = pods.pod(label, tmp_path)
    sandbox = client.run_pod(config)
    long = "sleep 1; head -c 40000 /dev/zero | tr '\\0' x; echo; printf unfinished; exit 7"
    made = client.create(sandbox, container(label, long), config)
    client.start(made)
    wait_for(lambda: client.container(made)["state"] == "CONTAINER_EXITED")
    ended = client.container(made)
    assert (ended["exit_code"], ended["reason"]) == (7, "Error")
    assert int(ended["finished_at"]) >= int(ended["started_at"]) > 0  # of one that lives longer than the call that starts it
    assert [line.text for line in logs.read(Path(ended["log_path"]))] == ["x" * 40000, "unfinished"]
    with pytest.raises(CallError, match=r"ExecSync: UNKNOWN: .*CONTAINER_EXITED"):
        client.exec(made, ["true"])


def test_what_is_not_there_and_what_cannot_be_asked_is_told_by_name(client: Client):
    with pytest.raises(CallError, match=r'ContainerStatus: NOT_FOUND: .*"nosuch"') as told:
        client.container("nosuch")
    assert (told.value.call, told.value.code) == ("ContainerStatus", "NOT_FOUND")
    with pytest.raises(LabError, match=r'Version: .*no field named "colour"'):
        client.call("Version", colour="green")


def test_a_socket_that_is_not_there_or_that_nobody_serves_is_told_with_the_remedy(tmp_path: Path):
    with pytest.raises(CallError, match="nosuch: Version: UNAVAILABLE; cause: there is no such socket; remedy: labkit up containerd"):
        Client(tmp_path / "nosuch").version()
    deaf = tmp_path / "deaf"
    with socket.socket(socket.AF_UNIX) as once:
        once.bind(str(deaf))
    with pytest.raises(CallError, match="deaf: Version: UNAVAILABLE; cause: the socket is there, and nobody listens on it"):
        Client(deaf).version()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, socket.socket]]:
    """Return a containerd of its own, its socket, and the registry that it asks: one that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as registry:
        hosts = tmp_path / "certs.d/docker.io/hosts.toml"
        hosts.parent.mkdir(parents=True)
        address = f"http://127.0.0.1:{registry.getsockname()[1]}"
        hosts.write_text(f'server = "{address}"\n[host."{address}"]\ncapabilities = ["pull", "resolve"]\n')
        config = tmp_path / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{tmp_path}/root"\nstate = "{tmp_path}/state"\n[grpc]\naddress = "{tmp_path}/socket"\n'
            f'[plugins."io.containerd.internal.v1.opt"]\npath = "{tmp_path}/opt"\n'
            f'[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "{tmp_path}/certs.d"\n'
        )
        with (tmp_path / "log").open("wb") as log:
            server = subprocess.Popen(["containerd", "--config", config], stdout=log, stderr=log)
        try:
            wait_for(lambda: (tmp_path / "socket").exists() and _answers(tmp_path / "socket"))
            yield server, tmp_path / "socket", registry
        finally:
            server.kill()
            server.wait()


def _answers(path: Path) -> bool:
    try:
        with Client(path) as one:
            return bool(one.version())
    except CallError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_is_stopped_in_the_middle_of_a_call_is_told(alone: tuple[Any, Path, socket.socket], number: int):
    server, path, registry = alone
    client = Client(path)
    told: list[CallError] = []

    def pull() -> None:
        with pytest.raises(CallError) as error:
            client.pull(IMAGE)
        told.append(error.value)

    thread = threading.Thread(target=pull)
    thread.start()
    asked, _ = registry.accept()  # the server is in the middle of it now
    server.send_signal(number)
    server.wait(20)
    thread.join(20)
    asked.close()
    assert [(error.call, error.code) for error in told] == [("PullImage", "UNAVAILABLE")]
    assert "nobody listens on it" in str(told[0]) or "there is no such socket" in str(told[0])
    with pytest.raises(CallError, match="Version: UNAVAILABLE; cause: "):
        client.version()


STARTER = """
    import os, sys, threading
    from pathlib import Path
    from labkit import ledger, runtimes
    from labkit.runtimes.cri import Client
    ledger.own("contract")
    run = Client.run_pod
    def killed(self, *words):
        threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), 9)).start()
        return run(self, *words)
    Client.run_pod = killed
    runtimes.find("cri").start(Path(sys.argv[1]), ["sleep", "300"], "web")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.usefixtures("services")
@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.15, 0.3])
def test_who_asks_for_a_pod_is_killed_while_it_is_made_and_the_clean_up_leaves_nothing(root: Callable[[Runtime], Path], seconds: float):
    runtime = runtimes.find("cri")
    argv = [sys.executable, "-c", textwrap.dedent(STARTER), str(root(runtime)), str(seconds)]
    assert subprocess.run(argv).returncode == -signal.SIGKILL
    entries = [entry for entry in ledger.live() if entry.kind == "cri container"]
    assert len(entries) == 1
    ledger.undo_one(entries[0])
    identifier = entries[0].key["id"]
    end = time.monotonic() + 1
    with Client(Path(entries[0].key["socket"])) as client:
        while time.monotonic() < end:  # nothing of it comes later either
            assert client.pods(**{"labkit.container": identifier}) == []
            assert not any(identifier in tag for one in client.images() for tag in one["repo_tags"])
            time.sleep(0.1)
    left = ["ctr", "--namespace", "k8s.io", "containers", "list", "--quiet", f'labels."labkit.container"=={identifier}']
    assert subprocess.run(left, capture_output=True, text=True).stdout == ""


@pytest.mark.usefixtures("client")
def test_any_call_can_be_made_from_a_terminal_and_what_is_traced_can_be_typed(label: dict[str, str], tmp_path: Path, services: Places):
    labkit = [sys.executable, "-m", "labkit", "cri", "--socket", str(services.containerd)]

    def typed(*words: str, told: Fields | None = None) -> Fields:
        done = subprocess.run([*labkit, *words], input=json.dumps(told), capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))

    sandbox = typed("RunPodSandbox", "-", told={"config": pods.pod(label, tmp_path)})["pod_sandbox_id"]
    with Client(services.containerd) as client, trace.collecting() as traced:
        assert client.pod(sandbox)["state"] == "SANDBOX_READY"
        client.stop_pod(sandbox)
    assert traced.shell() == f"labkit cri StopPodSandbox '{json.dumps({'pod_sandbox_id': sandbox})}'"
    typed(*shlex.split(traced.shell())[2:])
    assert typed("PodSandboxStatus", json.dumps({"pod_sandbox_id": sandbox}))["status"]["state"] == "SANDBOX_NOTREADY"
