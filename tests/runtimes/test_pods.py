"""A pod of a lab, call by call: what each call leaves is read back from the kernel, and nothing stays after it."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import ledger, trace
from labkit.errors import CommandError, LabError
from labkit.host.services import Places
from labkit.kernel import namespaces
from labkit.runtimes.cri import Client, claim, pod
from labkit.runtimes.cri.pod import Pod

OWNER = "pods"


@pytest.fixture
def web(services: Places, tmp_path: Path) -> Iterator[Pod]:
    ledger.own(OWNER)
    claim.claim_image(pod.IMAGE)
    claim.claim(pod.NAMESPACE)
    yield Pod(services.containerd, "web", tmp_path)
    ledger.undo(OWNER)
    ledger.own("")


def is_there(web: Pod) -> bool:
    with Client(web.socket) as client:
        return pod.find(client, web.name) is not None


def test_a_pod_from_its_sandbox_to_its_end(web: Pod):
    assert web.run().processes == ("pause",)
    one, two = web.container("one", ["sleep", "300"]), web.container("two", ["sleep", "300"])
    same = namespaces.shared(one.pid, two.pid)
    assert (same["net"], same["ipc"], same["uts"], same["mount"], same["pid"]) == (True, True, True, False, False)
    assert web.processes == ("pause", "sleep", "sleep")
    assert web.exec_sync("one", ["hostname"]) == "web\n"
    with pytest.raises(CommandError, match="exit status 3"):
        web.exec_sync("one", ["sh", "-c", "exit 3"])
    assert int(web.stats("two")["memory"]["usage_bytes"]["value"]) > 0
    address = web.address
    web.stop("one")
    assert (web.address, web.processes) == (address, ("pause", "sleep"))
    with pytest.raises(LabError, match="the container one of the pod web does not run"):
        web.first("one")
    with pytest.raises(LabError, match="the pod web has no container three"):
        web.first("three")
    web.end()
    assert (web.state, web.address, web.processes) == ("SANDBOX_NOTREADY", "", ())
    web.delete()
    assert not is_there(web)
    with pytest.raises(LabError, match="there is no pod web"):
        web.end()


def test_what_is_there_is_found_again_and_what_has_ended_is_made_anew(web: Pod):
    first = web.run().container("one", ["sh", "-c", "echo once; exec sleep 300"])
    assert web.run().container("one", ["sleep", "300"]) == first
    web.stop("one")
    assert web.container("one", ["sleep", "300"]).pid != first.pid
    web.end()
    assert web.run().processes == ("pause",)
    assert Pod(web.socket, "web", web.logs, "crun").run().state == "SANDBOX_READY"
    with Client(web.socket) as client:
        assert [one["runtime_handler"] for one in client.pods() if one["metadata"]["namespace"] == pod.NAMESPACE] == ["crun"]


def test_each_change_is_shown_as_a_line_that_can_be_typed(web: Pod):
    with trace.collecting() as traced:
        web.run().container("one", ["sleep", "300"])
        web.delete()
    assert not is_there(web)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "CONTAINER_RUNTIME_ENDPOINT": f"unix://{web.socket}"}
    lines = traced.shell().splitlines()
    assert [line.split("labkit cri ")[1].split()[0] for line in lines if "PullImage" not in line] == [
        "RunPodSandbox", "CreateContainer", "StartContainer", "StopPodSandbox", "RemovePodSandbox",
    ]  # fmt: skip
    until_it_runs = "\n".join(lines[:-2])
    subprocess.run(["bash", "-euc", f'{until_it_runs}\ntest "$web_one"'], env=environment, check=True)
    assert web.processes == ("pause", "sleep")


STARTER = """
    import os, sys, threading
    from pathlib import Path
    from labkit import ledger
    from labkit.runtimes.cri.pod import Pod
    ledger.own("pods")
    threading.Timer(float(sys.argv[3]), os.kill, (os.getpid(), 9)).start()
    Pod(Path(sys.argv[1]), "web", Path(sys.argv[2])).run().container("one", ["sleep", "300"])
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.4, 5.0])
def test_who_asks_for_a_pod_is_killed_meanwhile_and_the_clean_up_leaves_nothing(web: Pod, tmp_path: Path, seconds: float):
    argv = [sys.executable, "-c", textwrap.dedent(STARTER), str(web.socket), str(tmp_path), str(seconds)]
    assert subprocess.run(argv).returncode == -signal.SIGKILL
    ledger.undo(OWNER)
    assert not is_there(web)
    assert ledger.live(OWNER) == []


def test_an_image_that_was_pulled_for_the_lab_goes_with_it_and_another_one_stays(web: Pod):
    with Client(web.socket) as client:
        client.pull(pod.IMAGE)
        there = any(entry.key.get("name") == pod.IMAGE for entry in ledger.live(OWNER))
        ledger.undo(OWNER)
        assert (client.image(pod.IMAGE) is None) == there
        if client.image(pod.IMAGE) is None:
            client.pull(pod.IMAGE)
            there = False
        claim.claim_image(pod.IMAGE)
        ledger.undo(OWNER)
        assert client.image(pod.IMAGE) is not None
        if not there:
            client.remove_image(pod.IMAGE)


def test_pods_that_a_person_made_in_that_namespace_are_not_taken(web: Pod):
    web.run()
    for entry in ledger.live(OWNER):
        if entry.kind in ("cri pod", "cri claim"):
            ledger.gone(entry)
    with pytest.raises(LabError, match=r"the namespace lab has pods already \(1\), and this lab did not make them"):
        claim.claim(pod.NAMESPACE)
    web.delete()
