"""With the network cut: the course's own command lines, with docker, podman and containerd's client."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

LABKIT = Path(__file__).resolve().parents[2] / ".venv/bin/labkit"
HOSTNAME = re.compile(r"[0-9a-f]{12}")

CALLED = """\
set -e
ls /; pwd; date; env; hostname; id; ulimit -a; ip a; ifconfig lo; ping -c1 -w5 127.0.0.1; top -bn1; ps; cat /etc/os-release
touch /data; echo text > /data; cat /data; ls /data; sleep 0; which vi nc wget nslookup less more; mkdir -p /a/b; rm -r /a; mount
while [ 1 ]; do echo "hello world from container"; break; done; ip r; netstat -rn; df; du -s /etc; free; uname -a; seq 3; tail /data
"""
"""What the course's labs type in an alpine container; sh ends at the first that fails."""

ADDED = """\
addgroup --system --gid 101 nginx && adduser --system --disabled-login --ingroup nginx --no-create-home --home /nonexistent \
--gecos "nginx user" --shell /bin/false --uid 101 nginx && id nginx"""
"""As the course's Dockerfile has it."""


@dataclass(frozen=True)
class CutOff:
    """An instance of the lab's services in a network namespace that has nothing but its loopback."""

    pid: int
    state: Path
    environment: dict[str, str]

    def run(self, *argv: str, status: int = 0, **more: object) -> str:
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", *argv],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            **more,  # type: ignore[call-overload]
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def python(self, what: str) -> str:
        code = f"from labkit.host import services; print({what})"
        return self.run(str(LABKIT.with_name("python")), "-c", code).strip()


@pytest.fixture(scope="module")
def cut_off(seeded: Path) -> Iterator[CutOff]:
    state = seeded
    (state / "client").mkdir()
    (state / "client/config.json").write_text("{}")  # podman reads it, too
    holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
    try:
        while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            assert holder.poll() is None
        environment = {**os.environ, "LABKIT_STATE": str(state), "DOCKER_CONFIG": str(state / "client")}
        lab = CutOff(holder.pid, state, environment)
        lab.run("ip", "link", "set", "lo", "up")
        try:
            lab.run(str(LABKIT), "up", "--apart", "registry", "accounts", "docker")
            environment |= eval(lab.python("services.environment()"))
            yield lab
        finally:
            lab.run(str(LABKIT), "down")
    finally:
        holder.kill()
        holder.wait()


def test_there_is_no_way_out(cut_off: CutOff) -> None:
    assert "default" not in cut_off.run("ip", "route")
    cut_off.run("curl", "--silent", "--max-time", "5", "https://registry-1.docker.io/v2/", status=6)


def test_docker_pulls_and_runs_alpine(cut_off: CutOff) -> None:
    assert "docker.io/library/alpine:latest" in cut_off.run("docker", "image", "pull", "alpine")
    assert HOSTNAME.fullmatch(cut_off.run("docker", "run", "--rm", "alpine", "hostname").strip())


NO_OTHERS = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /etc/containers/registries.conf.d; exec "$@"', "sh")
"""Hides the drop-in files of this machine, such as those of the course's own instance: they would have the last word."""


def test_podman_pulls_and_runs_alpine(cut_off: CutOff, tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/run", prefix="labkit-") as run:  # podman wants a short name
        places = ("--root", str(tmp_path / "root"), "--runroot", run, "--storage-driver", "vfs")
        podman = (*NO_OTHERS, "podman", *places, "--log-level", "error")
        cut_off.run(*podman, "image", "pull", "alpine")
        assert HOSTNAME.fullmatch(cut_off.run(*podman, "run", "--rm", "--network", "none", "alpine", "hostname").strip())
        assert "Hello from Docker!" in cut_off.run(*podman, "run", "--rm", "--network", "none", "docker.io/library/hello-world")


def test_containerds_client_pulls_and_runs_alpine(cut_off: CutOff) -> None:
    certs = cut_off.python("services.places().certs_d")
    cut_off.run("ctr", "image", "pull", "--hosts-dir", certs, "docker.io/library/alpine:latest")
    name = cut_off.run("ctr", "run", "--rm", "docker.io/library/alpine:latest", "one", "hostname").strip()
    assert name == cut_off.run("hostname").strip()  # ctr makes no UTS namespace
    cut_off.run("ctr", "image", "pull", "--hosts-dir", certs, "registry.k8s.io/pause:3.6")


def test_every_tool_that_the_course_calls_in_alpine_is_there_and_works(cut_off: CutOff) -> None:
    said = cut_off.run("docker", "run", "--rm", "alpine", "sh", "-c", CALLED)
    assert "hello world from container" in said


@pytest.mark.parametrize(
    ("image", "command", "said"),
    [
        ("hello-world", [], "Hello from Docker!"),
        ("busybox", ["sh", "-c", "busybox | head -1"], "BusyBox v"),
        ("debian", ["cat", "/etc/os-release"], "ID=debian"),
        ("debian:buster-slim", ["sh", "-c", ADDED], "uid=101(nginx)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_other_images_run(cut_off: CutOff, image: str, command: list[str], said: str) -> None:
    assert said in cut_off.run("docker", "run", "--rm", image, *command).replace('"', "")


def test_nginx_serves_its_page_and_writes_its_log_where_docker_reads_it(cut_off: CutOff) -> None:
    cut_off.run("docker", "run", "-d", "--name", "web", "-p", "8080:80", "nginx")
    try:
        page = cut_off.run(
            "curl", "--silent", "--fail", "--retry", "20", "--retry-delay", "1", "--retry-all-errors", "http://127.0.0.1:8080/"
        )
        assert "<title>Welcome to nginx!</title>" in page
        cut_off.run("sh", "-c", "echo Welcome to Container Fundamentals! > host-file", cwd=cut_off.state)
        cut_off.run("docker", "container", "cp", "host-file", "web:/usr/share/nginx/html/index.html", cwd=cut_off.state)
        assert cut_off.run("curl", "--silent", "http://127.0.0.1:8080/") == "Welcome to Container Fundamentals!\n"
        assert '"GET / HTTP/1.1" 200' in cut_off.run("docker", "logs", "web")
    finally:
        cut_off.run("docker", "rm", "-f", "web")


def test_a_push_is_refused_before_the_login_and_accepted_after_it(cut_off: CutOff) -> None:
    accounts = cut_off.python("services.places().accounts_address")
    password = (cut_off.state / "accounts/password").read_text()
    cut_off.run("docker", "image", "pull", "alpine")
    for name in (f"{accounts}/lfstudent/alpine:training", "myregistry.com:5000/alpine:training"):
        cut_off.run("docker", "image", "tag", "alpine", name)
    mine, nowhere = f"{accounts}/lfstudent/alpine:training", "myregistry.com:5000/alpine:training"
    assert "no basic auth credentials" in cut_off.run("docker", "image", "push", mine, status=1)
    login = ("docker", "login", "-u", "student", "--password-stdin", accounts)
    assert "401 Unauthorized" in cut_off.run(*login, input="wrong", status=1)
    assert "Login Succeeded" in cut_off.run(*login, input=password)
    assert "digest: sha256:" in cut_off.run("docker", "image", "push", mine)
    assert "myregistry.com" in cut_off.run("docker", "image", "push", nowhere, status=1)
