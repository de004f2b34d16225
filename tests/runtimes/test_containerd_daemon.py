"""A containerd of a lab's own stands beside the machine's: it shares no network with it, and nothing of it outlives the ledger."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import ledger
from labkit.errors import LabError
from labkit.kernel import namespaces, network, trees
from labkit.runtimes import containerd_daemon
from labkit.runtimes.cri import CallError, Client

POD = {"metadata": {"name": "web", "uid": "1", "namespace": "lab-daemon"}, "linux": {"cgroup_parent": "/lab-daemon"}}
PAUSE = ("image", "pull", "--hosts-dir", "/etc/containerd/certs.d", "registry.k8s.io/pause:3.6")
CONFIGURATION = """{"cniVersion": "0.4.0", "name": "test", "plugins": [{"type": "bridge", "bridge": "cni-test", "isGateway": true,
  "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.199.1.0/24"}]]}}]}"""


@pytest.fixture
def own(own_state: Path) -> Iterator[Path]:
    before = ledger.owner()
    ledger.own("daemon")
    yield trees.make_tree(own_state / "daemon") / "own"
    ledger.undo("daemon")
    ledger.own(before)


@pytest.mark.usefixtures("services")
def test_it_has_no_network_for_pods_until_a_file_names_one(own: Path):
    process = containerd_daemon.serve(own)
    address = ["ctr", "--address", str(containerd_daemon.socket(own)), "--namespace", "k8s.io"]
    subprocess.run([*address, *PAUSE], check=True, capture_output=True)
    with Client(containerd_daemon.socket(own)) as client:
        assert client.conditions()["NetworkReady"]["reason"] == "NetworkPluginNotReady"
        with pytest.raises(CallError, match="cni plugin not initialized"):
            client.run_pod(POD)
        (own / "cni/10-test.conflist").write_text(CONFIGURATION)
        while not client.conditions()["NetworkReady"]["status"]:
            pass
        pod = client.run_pod({**POD, "metadata": {**POD["metadata"], "uid": "2"}})
        pid = client.pod(pod)["info"]["pid"]
    assert [each for link in network.links(pid) for each in link.addresses if each.startswith("10.199.1.")]
    assert not namespaces.shared(process.pid, "self")["net"]
    assert "cni-test" not in {link.ifname for link in network.links()}
    process.kill()
    ledger.undo("daemon")
    assert not Path(f"/proc/{pid}").exists()
    assert not own.exists()


def test_one_that_cannot_start_says_why(own: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(containerd_daemon, "_CONFIGURATION", "version =\n")
    with pytest.raises(LabError, match="own ended with status 1") as caught:
        containerd_daemon.serve(own)
    assert "containerd.toml" in caught.value.cause
