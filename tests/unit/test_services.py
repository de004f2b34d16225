"""The services without any: the table, the places, what is written for whom, and what is found again in a packet filter."""

import os
import socket
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.host.services import accounts, files, handlers, lifecycle, mirrors, packet_filter, probes, programs, table, units
from labkit.host.services.backend import Process
from labkit.host.services.places import Places
from labkit.host.services.table import SERVICES, Service, named, with_dependents, with_needed

PLACES = Places(Path("/var/lib/labkit"), Path("/run/labkit"), Path("/var/lib/labkit/lxd"))
SAVED = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:MINE - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i eth1 -j MINE
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:CNI-0123456789abcdef01234567 - [0:0]
:CNI-f123456789abcdef01234567 - [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A POSTROUTING -s 10.9.0.2/32 -d 10.9.0.2/32 -p tcp -j MASQUERADE
-A POSTROUTING -s 10.203.10.2/32 -m comment --comment "name: \\"labkit\\" id: \\"a\\"" -j CNI-0123456789abcdef01234567
-A POSTROUTING -s 10.88.0.2/32 -m comment --comment "name: \\"podman\\" id: \\"b\\"" -j CNI-f123456789abcdef01234567
-A CNI-0123456789abcdef01234567 -d 10.203.10.0/24 -m comment --comment "name: \\"labkit\\" id: \\"a\\"" -j ACCEPT
-A CNI-f123456789abcdef01234567 -d 10.88.0.0/16 -m comment --comment "name: \\"podman\\" id: \\"b\\"" -j ACCEPT
COMMIT
"""


def test_docker_brings_containerd_and_the_registry_along_and_in_their_order() -> None:
    assert [service.name for service in with_needed(["docker"])] == ["registry", "containerd", "docker"]


def test_who_is_needed_takes_those_that_need_it_down_first() -> None:
    assert [service.name for service in with_dependents(["containerd"])] == ["docker", "containerd"]
    assert [service.name for service in with_dependents(["registry"])] == ["registry"]


def test_each_service_stands_after_those_that_it_needs() -> None:
    order = [service.name for service in SERVICES]
    for service in SERVICES:
        assert all(order.index(other) < order.index(service.name) for other in (*service.needs, *service.wants))


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(LabError, match=r"no service 'podman'; remedy: name one of registry, accounts"):
        with_needed(["podman"])


def test_a_service_that_not_every_debian_has_is_one_of_this_machine_where_its_program_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = Service("rare", "a daemon", str(tmp_path / "rared"), "rare.service", only="Debian 13 and later")
    monkeypatch.setattr(table, "SERVICES", (*SERVICES, rare))
    assert "rare" not in [service.name for service in table.here()]
    assert "rare" not in [service.name for service in with_needed([])]
    (tmp_path / "rared").touch()
    assert "rare" in [service.name for service in table.here()]
    assert "rare" in [service.name for service in with_needed([])]


def test_incus_lies_beside_lxd_wherever_that_is() -> None:
    assert PLACES.incus == Path("/var/lib/labkit/incus")
    assert replace(PLACES, lxd=Path("/var/lib/lxd")).incus == Path("/var/lib/incus")


def test_dockers_rules_and_chains_are_found_and_nobody_elses() -> None:
    lines = packet_filter.removal("docker", SAVED, ("docker0",), ("172.17.0.1/16",), set())
    assert lines == {
        "filter": [
            "-D FORWARD -j DOCKER-USER",
            "-D FORWARD -o docker0 -j DOCKER",
            "-D FORWARD -i docker0 ! -o docker0 -j ACCEPT",
            "-F DOCKER", "-F DOCKER-USER", "-X DOCKER", "-X DOCKER-USER",
        ],
        "nat": [
            "-D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
            "-D POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE",
            "-F DOCKER", "-X DOCKER",
        ],
    }  # fmt: skip


def test_a_rule_that_a_person_wrote_into_docker_user_keeps_its_chain() -> None:
    saved = SAVED.replace("-A DOCKER-USER -j RETURN", "-A DOCKER-USER -s 192.0.2.9/32 -j DROP\n-A DOCKER-USER -j RETURN")
    lines = packet_filter.removal("docker", saved, ("docker0",), (), set())
    assert not any("DOCKER-USER" in line for line in lines["filter"])


def test_chains_that_were_there_before_are_another_dockers() -> None:
    lines = packet_filter.removal("docker", SAVED, (), (), {"filter DOCKER", "filter DOCKER-USER", "nat DOCKER"})
    assert lines == {}


def test_of_the_cni_chains_only_those_of_our_network_go() -> None:
    lines = packet_filter.removal("containerd", SAVED, ("cni0",), (), set())
    ours = "CNI-0123456789abcdef01234567"
    assert [line.split()[0] for line in lines["nat"]] == ["-D", "-F", "-X"]
    assert all(ours in line for line in lines["nat"])
    assert set(lines) == {"nat"}


THEIRS = """*filter
:FORWARD ACCEPT [0:0]
:CNI-ADMIN - [0:0]
:CNI-FORWARD - [0:0]
-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
-A CNI-FORWARD -s 10.9.0.2/32 -j ACCEPT
COMMIT
*nat
:CNI-DN-0123456789abcdef01234 - [0:0]
:CNI-DN-abcdef0123456789abcde - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"theirs\\" id: \\"a\\"" -j CNI-DN-0123456789abcdef01234
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"lab\\" id: \\"b\\"" -j CNI-DN-abcdef0123456789abcde
-A CNI-DN-0123456789abcdef01234 -p tcp -j DNAT --to-destination 10.9.0.2:80
-A CNI-DN-abcdef0123456789abcde -p tcp -j DNAT --to-destination 10.8.0.2:80
COMMIT
"""


def test_what_networks_of_a_lab_share_stays_while_others_need_it() -> None:
    lines = packet_filter.removal("cni", THEIRS, (), (), set(), ("lab",))
    assert "filter" not in lines
    assert [line.split()[0] for line in lines["nat"]] == ["-D", "-F", "-X"]
    assert all("CNI-DN-abcdef0123456789abcde" in line for line in lines["nat"])
    ours = THEIRS.replace("theirs", "lab").replace("-A CNI-FORWARD -s 10.9.0.2/32 -j ACCEPT\n", "")
    alone = packet_filter.removal("cni", ours, (), (), set(), ("lab",))
    assert [line for line in alone["filter"] if line.startswith("-X")] == ["-X CNI-ADMIN", "-X CNI-FORWARD"]
    assert len([line for line in alone["nat"] if line.startswith("-X")]) == 4


def test_the_tools_ask_the_mirror_first_and_a_short_name_needs_no_terminal() -> None:
    text = mirrors.registries_conf(PLACES)
    assert text.startswith("# labkit's")
    assert 'unqualified-search-registries = ["docker.io"]' in text
    hosts = mirrors.hosts_toml("https://registry-1.docker.io", "http://127.0.0.1:5000")
    assert 'server = "https://registry-1.docker.io"' in hosts
    assert '[host."http://127.0.0.1:5000"]' in hosts


def test_beside_another_instance_no_file_is_outside_of_the_state_directory() -> None:
    apart = replace(PLACES, docker_bridge="docker-1")
    assert all(path.is_relative_to(PLACES.state) for path in mirrors.texts(apart))


def test_a_file_is_ours_by_its_first_line_only(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    assert files.is_ours(path)
    path.write_text("# by hand\n")
    assert not files.is_ours(path)
    path.write_text(f"{files.MARK}\nmore\n")
    assert files.is_ours(path)


def test_a_file_is_written_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "below/conf"
    assert files.write(path, "one\n", 0o600)
    assert not files.write(path, "one\n", 0o600)
    assert files.write(path, "one\n", 0o644)
    assert [entry.name for entry in path.parent.iterdir()] == ["conf"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"file/conf cannot be written: "):
        files.write(tmp_path / "file/conf", "x")


def test_the_units_of_our_own_listen_where_they_are_told_and_are_marked() -> None:
    text = units.text(named("registry"), PLACES)
    assert text.startswith(files.MARK)
    assert "ExecStart=/usr/bin/docker-registry serve /var/lib/labkit/services/registry.yml\n" in text
    assert "User=docker-registry" in text
    assert "Restart=always" in text
    assert units.path(named("registry")) == Path("/etc/systemd/system/labkit-registry.service")
    assert units.path(named("docker")) == Path("/etc/systemd/system/docker.service.d/50-labkit.conf")


@pytest.fixture
def crun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let crun be in PATH, on a machine that it refuses: controllers in both versions of cgroups."""
    program = tmp_path / "bin/crun"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nls "$1"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def test_crun_is_a_handler_beside_the_default_one_which_is_named_as_well(crun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "_hidden", lambda _: None)
    told = tomllib.loads(programs.containerd_configuration(PLACES))["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    assert {name: handler["options"]["BinaryName"] for name, handler in told.items()} == {"runc": "runc", "crun": str(crun)}
    monkeypatch.setenv("PATH", str(crun.parent / "nosuch"))
    told = tomllib.loads(programs.containerd_configuration(PLACES))["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    assert told.keys() == {"runc"}


def test_where_crun_refuses_the_machine_the_handler_is_what_hides_v2_from_it(
    crun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "_hidden", lambda _: Path("/sys/fs/cgroup/unified"))
    places = replace(PLACES, state=tmp_path)
    assert handlers.crun(places) == tmp_path / "services/crun"
    assert handlers.prepare(places)
    assert not handlers.prepare(places)
    assert os.access(tmp_path / "services/crun", os.X_OK)
    assert f"exec {crun} " in (tmp_path / "services/crun").read_text()


def test_dockerd_is_told_of_crun_unless_a_person_has_named_runtimes(crun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = tmp_path / "docker.service"
    unit.write_text("[Service]\nExecStart=/usr/sbin/dockerd -H fd://\n")
    monkeypatch.setattr(units, "_SHIPPED", (tmp_path,))
    monkeypatch.setattr(units, "_DAEMON", tmp_path / "daemon.json")
    monkeypatch.setattr(handlers, "_hidden", lambda _: None)
    mirror, runtime = "--registry-mirror=http://127.0.0.1:5000", f"--add-runtime=crun={crun}"
    assert f"ExecStart=/usr/sbin/dockerd -H fd:// {mirror} {runtime}\n" in units.text(named("docker"), PLACES)
    (tmp_path / "daemon.json").write_text('{"runtimes": {}}')
    assert f"ExecStart=/usr/sbin/dockerd -H fd:// {mirror}\n" in units.text(named("docker"), PLACES)
    (tmp_path / "daemon.json").write_text('{"runtimes": {}, "registry-mirrors": ["http://mirror"]}')
    assert "ExecStart" not in units.text(named("docker"), PLACES)


@contextmanager
def serving(answer: bytes) -> Iterator[Places]:
    """Answer one request on a port of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        def once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        yield replace(PLACES, registry=server.getsockname()[1])
        thread.join()


REGISTRY = b"HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\r\n{}"


@pytest.mark.parametrize(
    ("answer", "ok", "said"),
    [
        (REGISTRY, True, "registry/2.0, HTTP 200"),
        (REGISTRY.replace(b"200", b"503"), False, "registry/2.0, HTTP 503"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", False, "no registry: HTTP 200"),
        (b"220 smtp ready\r\n", False, "no registry: no HTTP answer"),
        (b"", False, "no registry: no HTTP answer"),
    ],
)
def test_only_a_registry_that_serves_is_healthy(answer: bytes, ok: bool, said: str) -> None:
    with serving(answer) as places:
        assert probes.ask("registry", places) == probes.Health(ok, said)


def test_where_nobody_listens_nothing_is_held() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert probes.ask("registry", replace(PLACES, registry=port)) == probes.Health(ok=False, said="Connection refused", held=False)


class Runs:
    """A backend whose service runs, whatever is asked."""

    name = "supervisord"

    def observe(self, service: Service) -> Process:
        return Process("running", 1)

    def log(self, service: Service) -> str:
        return "/var/log/it"

    def last_line(self, service: Service) -> str:
        return "waiting for Godot"


def test_a_daemon_that_never_answers_is_given_up_at_its_deadline_with_its_last_line_and_its_log() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    late = replace(named("registry"), seconds=0.2)
    with pytest.raises(LabError) as caught:
        lifecycle.await_answer(late, replace(PLACES, registry=port), Runs())  # type: ignore[arg-type]
    assert str(caught.value) == (
        "registry does not answer after 0.2 s (Connection refused): waiting for Godot; remedy: read /var/log/it"
    )


def test_the_certificate_holds_where_the_standard_is_taken_strictly(tmp_path: Path) -> None:
    """Python 3.13 verifies so by default; 3.11 did not."""
    accounts.make(tmp_path, (os.getuid(), os.getgid()))
    verified = ["openssl", "verify", "-x509_strict", "-verify_hostname", "localhost", "-CAfile", "ca.crt", "server.crt"]
    done = subprocess.run(verified, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "server.crt: OK\n"), done.stderr
    assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600


def test_secrets_are_made_once(tmp_path: Path) -> None:
    owner = (os.getuid(), os.getgid())
    assert accounts.make(tmp_path, owner)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert not accounts.make(tmp_path, owner)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
