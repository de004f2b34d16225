"""The services of the labs, for real: on the course's ports and sockets, in a network and a /run of their own."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
INCUS = ("incus",) if Path("/usr/libexec/incus/incusd").exists() else ()
NAMES = ("registry", "accounts", "containerd", "docker", "lxc-bridge", "lxd", *INCUS)
STATE = Path("/var/lib/labkit-test-services")
PRIVATE = """
mount -t tmpfs tmpfs /run
mkdir /run/etc /run/work && mount -t overlay etc -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work /etc
ip link set lo up
echo ready
exec cat
"""
"""A /run and an /etc that nobody else sees; it ends with its standard input. (/run/etc shows what was written into /etc.)"""


class Machine:
    """Namespaces in which nothing of ours runs yet."""

    def __init__(self) -> None:
        argv = ["unshare", "--net", "--mount", "bash", "-euc", PRIVATE]
        self.holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"

    def start(self, *argv: str | Path, state: Path = STATE, **how: Any) -> subprocess.Popen[str]:
        inside = ["nsenter", f"--target={self.holder.pid}", "--net", "--mount", "--wdns=/", *map(str, argv)]
        own = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(inside, env={**os.environ, "LABKIT_STATE": str(state), "TERM": "dumb"}, **{**own, **how})

    def run(self, *argv: str | Path, state: Path = STATE, said: str | None = None) -> subprocess.CompletedProcess[str]:
        process = self.start(*argv, state=state, stdin=subprocess.PIPE)
        output, errors = process.communicate(said, timeout=120)
        return subprocess.CompletedProcess(list(map(str, argv)), process.returncode, output, errors)

    def labkit(self, *argv: str, state: Path = STATE) -> subprocess.CompletedProcess[str]:
        return self.run(ROOT / ".venv/bin/labkit", *argv, state=state)

    def up(self, *names: str) -> None:
        done = self.labkit("up", *names)
        assert (done.returncode, done.stderr) == (0, "")

    def status(self, *, state: Path = STATE) -> dict[str, dict[str, Any]]:
        report = json.loads(self.labkit("status", "--json", state=state).stdout)
        assert report["version"] == 1
        return {service["name"]: service for service in report["services"]}

    def pids(self) -> dict[str, int]:
        return {name: service["pid"] for name, service in self.status().items()}

    def kernel(self) -> dict[str, list[str]]:
        """Read what `down` must leave as it was."""
        lines = {
            what: self.run("sh", "-c", line).stdout.splitlines()
            for what, line in {
                "links": "ip -o link | cut -d: -f2 | sort; ip -o -4 address | tr -s ' ' | cut -d' ' -f2,4",
                "rules": "nft --stateless list ruleset",
                "policies": "iptables-save | sed -n 's/ \\[.*//; /^[:-]/p'",
                "forwarding": "cat /proc/sys/net/ipv4/ip_forward",
                "run": "find /run -path /run/etc -prune -o -path /run/work -prune -o -print | sort",
                "etc": "find /run/etc -type f | sort",
                "mounts": f"grep -e {STATE} -e ' /run' /proc/self/mountinfo | cut -d' ' -f5",
            }.items()
        }
        return {**lines, "processes": sorted(of_ours())}

    def end(self) -> None:
        assert self.holder.stdin is not None
        self.holder.stdin.close()
        self.holder.wait(10)


def of_ours(state: Path = STATE) -> list[str]:
    """Name the processes that carry the mark of the instance."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"LABKIT_SERVICES_OF={state}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(f"{(process / 'comm').read_text().strip()} {process.name}")
        except OSError:
            continue
    return found


def until(true: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.1)
    return False


def one_line(done: subprocess.CompletedProcess[str], status: int = 2) -> str:
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("labkit: ")
    return done.stderr


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    while left := of_ours():  # by a run that was killed
        for one in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(one.split()[-1]), signal.SIGKILL)
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(mode=0o755)
    found = Machine()
    try:
        yield found
    finally:
        found.labkit("down")
        found.end()
        shutil.rmtree(STATE)


@pytest.fixture(scope="module")
def before(machine: Machine) -> dict[str, list[str]]:
    return machine.kernel()


@pytest.fixture
def all_up(machine: Machine, before: dict[str, list[str]]) -> Machine:
    machine.up()
    return machine


@pytest.fixture
def none_up(machine: Machine, before: dict[str, list[str]]) -> Machine:
    done = machine.labkit("down")
    assert (done.returncode, done.stderr) == (0, "")
    return machine


def test_up_brings_up_every_service_and_says_a_line_for_each(none_up: Machine) -> None:
    done = none_up.labkit("up")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == list(NAMES)
    found = none_up.status()
    assert {name: (service["state"], service["by"]) for name, service in found.items()} == dict.fromkeys(NAMES, ("up", "supervisord"))


def test_status_is_a_table_of_80_columns(all_up: Machine) -> None:
    done = all_up.labkit("status")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines() if line[0] != " "] == ["service", *NAMES]
    assert [line for line in done.stdout.splitlines() if len(line) > 80 and "log " not in line] == []


def processor_time() -> float:
    """Return the seconds that our children had of a processor: the time on the clock is also that of others on the machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_up_where_all_is_up_changes_nothing_and_takes_less_than_half_a_second(all_up: Machine) -> None:
    pids, used = all_up.pids(), processor_time()
    done = all_up.labkit("up")
    used = processor_time() - used
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert all_up.pids() == pids
    assert used < 0.5


def test_the_set_up_finds_nothing_to_do_where_all_is_up(all_up: Machine) -> None:
    done = all_up.run(ROOT / "vagrant/provision/40-services.sh", "need", "lab")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_service_does_what_it_is_there_for(all_up: Machine) -> None:
    mirrors = all_up.run("docker", "info", "--format", "{{json .RegistryConfig.Mirrors}}").stdout
    assert json.loads(mirrors) == ["http://127.0.0.1:5000/"]
    assert re.search(r"io.containerd.grpc.v1\s+cri\s+\S+\s+ok", all_up.run("ctr", "plugins", "list").stdout)
    password = (STATE / "accounts/password").read_text()
    assert (STATE / "accounts/password").stat().st_mode & 0o777 == 0o600
    wrong = all_up.run("docker", "login", "--username", "student", "--password-stdin", "localhost:5001", said="wrong")
    assert wrong.returncode == 1
    assert "401 Unauthorized" in wrong.stderr
    trusted = ("curl", "--silent", "--fail", "--cacert", STATE / "accounts/ca.crt")
    right = all_up.run(*trusted, "--user", f"student:{password.strip()}", "https://localhost:5001/v2/")
    assert (right.returncode, right.stdout) == (0, "{}")
    assert "10.0.3.1/24" in all_up.run("ip", "-brief", "address", "show", "lxcbr0").stdout


def test_the_services_listen_on_no_address_of_the_outside(all_up: Machine) -> None:
    listening = all_up.run("ss", "--listening", "--tcp", "--numeric", "--no-header").stdout.split("\n")
    addresses = {line.split()[3].rsplit(":", 1)[0] for line in listening if line}
    assert addresses <= {"127.0.0.1", "10.0.3.1", "[fe80::216:3eff:fe00:0]%lxcbr0"} | {a for a in addresses if a.endswith("%lxcbr0")}


def test_the_tools_that_read_etc_find_the_mirror(all_up: Machine) -> None:
    conf = all_up.run("cat", "/etc/containers/registries.conf.d/50-labkit.conf").stdout
    assert conf.startswith("# labkit's")
    assert 'location = "127.0.0.1:5000"' in conf
    all_up.run("skopeo", "inspect", "docker://alpine")  # which is not there
    assert "alpine" in (STATE / "log/registry.log").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_service_killed_with_sigkill_comes_back(name: str, all_up: Machine) -> None:
    pid = all_up.pids()[name]
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: (now := all_up.status()[name])["state"] == "up" and now["pid"] not in (0, pid))


def test_a_service_that_hangs_is_red_with_its_remedy_and_the_remedy_helps(all_up: Machine) -> None:
    pid = all_up.pids()["registry"]
    os.kill(pid, signal.SIGSTOP)
    doctor = all_up.labkit("doctor")
    assert doctor.returncode == 1
    said = " ".join(doctor.stdout.split())
    assert "red registry does not answer cause: 127.0.0.1:5000: no answer in time" in said
    assert "remedy: labkit up registry" in said
    all_up.up("registry")
    assert all_up.pids()["registry"] != pid
    assert not Path(f"/proc/{pid}").exists()


def test_a_docker_whose_bridge_somebody_removed_is_reported_and_repaired(all_up: Machine) -> None:
    all_up.run("ip", "link", "delete", "docker0")
    assert all_up.labkit("status").returncode == 1
    docker = all_up.status()["docker"]
    assert (docker["state"], docker["health"]) == ("failed", "its bridge docker0 is gone")
    all_up.up("docker")
    assert "172.17.0.1/16" in all_up.run("ip", "-brief", "address", "show", "docker0").stdout


def test_after_supervisord_was_killed_status_fails_the_doctor_is_red_and_up_recovers(all_up: Machine) -> None:
    supervisord = next(process for process in of_supervisord(all_up))
    old = set(of_ours())
    os.kill(supervisord, signal.SIGKILL)
    assert until(lambda: {process.split()[0] for process in old & set(of_ours())} <= {"dnsmasq"}), "they end with it, but dnsmasq"
    assert all_up.labkit("status").returncode == 1
    assert all_up.labkit("doctor").returncode == 1
    all_up.up()
    assert {service["state"] for service in all_up.status().values()} == {"up"}
    assert not old & set(of_ours())


def of_supervisord(machine: Machine) -> list[int]:
    files = machine.run("sh", "-c", "cat /run/labkit-*/supervisord.pid").stdout.split()
    return list(map(int, files))


@pytest.mark.parametrize("seconds", [0.15, 0.4, 0.8, 1.5])
def test_up_killed_after_some_time_leaves_nothing_that_down_does_not_find(
    seconds: float, none_up: Machine, before: dict[str, list[str]]
) -> None:
    process = none_up.start(ROOT / ".venv/bin/labkit", "up", "docker", "lxc-bridge", start_new_session=True)
    with contextlib.suppress(subprocess.TimeoutExpired):  # where it is faster, all is up
        process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert none_up.labkit("down", "--config").returncode == 0
    assert none_up.kernel() == before


@pytest.fixture
def image(tmp_path: Path) -> Path:
    shutil.copy("/bin/busybox", tmp_path / "busybox")
    archive = tmp_path / "image.tar"
    subprocess.run(["tar", "-C", tmp_path, "-cf", archive, "busybox"], check=True)
    return archive


SERVE = ("/busybox", "sh", "-c", "trap exit TERM; while :; do /busybox sleep 0.1; done")


def with_containers(machine: Machine, image: Path) -> None:
    """Run a container with a published port, one in a network of its own, and one of containerd's own."""
    assert machine.run("docker", "import", image, "tiny").returncode == 0
    machine.run("docker", "network", "create", "own")
    for options in (["--publish", "8080:80"], ["--network", "own"]):
        done = machine.run("docker", "run", "--detach", *options, "tiny", *SERVE)
        assert (done.returncode, done.stderr) == (0, "")
    rootfs = STATE / "rootfs"
    rootfs.mkdir(exist_ok=True)
    shutil.copy("/bin/busybox", rootfs)
    done = machine.run("ctr", "run", "--detach", "--rootfs", rootfs, f"canary{time.monotonic_ns()}", *SERVE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "DOCKER" in machine.run("iptables-save").stdout


@pytest.mark.parametrize("killed", ["nothing", "everything"])
def test_down_leaves_the_machine_as_it_was_and_a_neighbour_alone(
    killed: str, none_up: Machine, before: dict[str, list[str]], image: Path
) -> None:
    none_up.up("docker", "lxc-bridge")
    with_containers(none_up, image)
    none_up.run("sh", "-c", "ip link add neighbour type bridge; iptables -t nat -A POSTROUTING -o neighbour -j MASQUERADE")
    if killed == "everything":
        os.kill(of_supervisord(none_up)[0], signal.SIGKILL)
        for process in of_ours():
            name, pid = process.rsplit(" ", 1)
            if name in ("dockerd", "containerd"):
                os.kill(int(pid), signal.SIGKILL)
    done = none_up.labkit("down", "--config")
    assert (done.returncode, done.stderr) == (0, "")
    assert "neighbour" in none_up.run("ip", "-brief", "link").stdout
    rules = none_up.run("iptables-save").stdout
    assert "-A POSTROUTING -o neighbour -j MASQUERADE" in rules
    assert "DOCKER" not in rules
    none_up.run("sh", "-c", "ip link del neighbour; nft delete table ip nat")
    assert none_up.kernel() == before


def test_a_foreign_server_on_the_port_is_named_and_left(none_up: Machine) -> None:
    server = none_up.start("/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "5000")
    try:
        assert until(lambda: none_up.run("curl", "--silent", "http://127.0.0.1:5000/").returncode == 0)
        said = one_line(none_up.labkit("up", "registry"))
        assert re.search(r"registry: 127\.0\.0\.1:5000 is held by python3 \(pid \d+\), not labkit's", said)
        assert none_up.status()["registry"]["state"] == "foreign"
        none_up.labkit("down")
        assert server.poll() is None
    finally:
        server.kill()
        server.communicate()


def test_a_foreign_docker_is_used_and_neither_configured_nor_stopped(none_up: Machine) -> None:
    own = [f"--data-root={STATE}/foreign", "--exec-root=/run/foreign", "--pidfile=/run/foreign.pid", "--host=unix:///run/docker.sock"]
    docker = none_up.start("dockerd", *own, "--iptables=false", "--bridge=none", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: none_up.run("docker", "version").returncode == 0)
        done = none_up.labkit("up", "docker")
        assert done.returncode == 0
        assert f"docker: used as it is, /run/docker.sock is served by dockerd (pid {docker.pid}), not labkit's" in done.stdout
        doctor = " ".join(none_up.labkit("doctor").stdout.split())
        assert re.search(r"amber docker Docker \S+ HTTP 200 \(not ours, .* cause: the local registry is not among its mirrors", doctor)
        assert "docker: left as it is" in none_up.labkit("down").stdout
        assert docker.poll() is None
    finally:
        docker.terminate()
        docker.wait(30)


def test_a_second_instance_stands_beside_the_first(all_up: Machine) -> None:
    second = STATE / "second"
    try:
        done = all_up.labkit("up", "--apart", "docker", state=second)
        assert (done.returncode, done.stderr) == (0, "")
        first, other = all_up.status(), all_up.status(state=second)
        third = all_up.run(ROOT / "vagrant/provision/40-services.sh", "need", "lab", state=STATE / "third")
        assert (third.returncode, third.stdout) == (0, ""), "a set-up leaves the machine to the instance that has the course's places"
        for name in ("registry", "containerd", "docker"):
            assert (first[name]["state"], other[name]["state"]) == ("up", "up")
            assert first[name]["where"] != other[name]["where"]
    finally:
        all_up.labkit("down", state=second)
    assert all_up.labkit("status").returncode == 0
    assert of_ours(second) == []


def test_what_a_person_wrote_is_left_as_it_is(none_up: Machine) -> None:
    path = "/etc/containers/registries.conf.d/50-labkit.conf"
    none_up.run("sh", "-c", f"echo '# mine' > {path}")
    try:
        assert f"{path}: left as it is, it is not labkit's" in none_up.labkit("up", "registry").stdout
        none_up.labkit("down")
        none_up.labkit("down", "--config")
        assert none_up.run("cat", path).stdout == "# mine\n"
    finally:
        none_up.run("rm", path)


def test_lab_clean_up_leaves_the_services(all_up: Machine) -> None:
    pids = all_up.pids()
    assert all_up.labkit("clean").stdout == "nothing of the labs is left\n"
    assert all_up.pids() == pids


def test_a_daemon_that_does_not_start_is_one_line_with_its_last_words_and_its_log(none_up: Machine) -> None:
    shutil.rmtree(STATE / "docker", ignore_errors=True)
    (STATE / "docker").write_text("in the way")
    try:
        said = one_line(none_up.labkit("up", "docker"))
    finally:
        (STATE / "docker").unlink()
    assert "docker does not start: " in said
    assert f"points to a file '{STATE}/docker'" in said
    assert f"remedy: read {STATE}/log/docker.log" in said
    assert none_up.status()["docker"]["state"] == "down"


def test_a_full_disk_is_one_line_and_nothing_stays(machine: Machine) -> None:
    small = Path("/run/small")
    machine.run("sh", "-c", f"mkdir {small} && mount -t tmpfs -o size=64k,mode=755 tmpfs {small}")
    machine.run("dd", "if=/dev/zero", f"of={small}/full", "bs=1k", "count=48")
    try:
        said = one_line(machine.labkit("up", "accounts", state=small))
        assert "No space left" in said or "space" in said
        machine.labkit("down", state=small)
        assert of_ours(small) == []
    finally:
        machine.run("sh", "-c", f"umount {small}; rmdir {small}")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["up", "dockr"], "there is no service 'dockr'; remedy: name one of registry, accounts, "),
        (["down", "lxc"], "there is no service 'lxc'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_name_is_one_line(argv: list[str], said: str, machine: Machine) -> None:
    assert said in one_line(machine.labkit(*argv))


@pytest.mark.parametrize("text", ["[]", "{", '{"registry": "5000"}', '{"docker": "docker.sock"}', '{"teleport": 1}'])
def test_a_wrong_services_json_is_one_line_that_names_it(text: str, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "services.json").write_text(text)
    assert f"{tmp_path}/services.json cannot be used" in one_line(machine.labkit("up", state=tmp_path))
