"""JupyterLab as `make lab` starts it."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
URL = re.compile(r"http://127\.0\.0\.1:(\d+)/lab\?token=[0-9a-f]{48}")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    monkeypatch.delenv("DISPLAY", raising=False)
    return tmp_path


@contextmanager
def running(*argv: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start a command in the checkout; give it and the lines it wrote up to the URL."""
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line.strip())
            if URL.search(line):
                break
        yield process, lines
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches everybody in the foreground
        process.communicate(timeout=15)


def status_of(url: str) -> int:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_make_lab_on_a_machine_that_is_set_up_reaches_the_url_within_5_seconds_and_says_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_STATE")  # what is set up is the machine: another state would be seeded with all images first
    subprocess.run(["vagrant/provision/setup.sh", "lab"], cwd=ROOT, check=True, capture_output=True)
    begin = time.monotonic()
    with running("make", "lab") as (_, lines):
        took = time.monotonic() - begin
        url = URL.search(lines[-1])
        assert url
        assert [line for line in lines if "is taken" not in line] == [lines[-1]]
        assert status_of(url[0]) == 200
        assert took < 5


def test_its_token_is_needed() -> None:
    with running(".venv/bin/labkit", "start") as (_, lines):
        port = URL.search(lines[-1])[1]
        assert status_of(f"http://127.0.0.1:{port}/api/contents") == 403


def test_it_listens_on_127_0_0_1_only() -> None:
    with running(".venv/bin/labkit", "start") as (_, lines):
        port = URL.search(lines[-1])[1]
        listening = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
        assert [line.split()[3] for line in listening.splitlines()] == [f"127.0.0.1:{port}"]


def test_a_second_start_prints_the_url_of_the_first_and_ends() -> None:
    with running(".venv/bin/labkit", "start") as (_, lines):
        again = subprocess.run([".venv/bin/labkit", "start"], cwd=ROOT, capture_output=True, text=True, timeout=15)
        assert again.returncode == 0
        assert URL.search(again.stdout)[0] == URL.search(lines[-1])[0]


def test_a_taken_port_is_left_alone_and_the_next_one_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running(".venv/bin/labkit", "start", "--port", str(port)) as (_, lines):
            used = URL.search(lines[-1])[1]
            assert lines[0] == f"port {port} is taken, JupyterLab listens on {used}"
            assert used != str(port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_it_within_5_seconds_with_all_its_processes(number: signal.Signals) -> None:
    with running(".venv/bin/labkit", "start") as (process, lines):
        port = URL.search(lines[-1])[1]
        begin = time.monotonic()
        os.killpg(process.pid, number)
        process.wait(timeout=10)
        assert time.monotonic() - begin < 5
        assert process.returncode == 0
        with pytest.raises(OSError, match="refused"):
            status_of(f"http://127.0.0.1:{port}/")


def test_a_server_that_was_killed_is_not_taken_for_a_running_one(state: Path) -> None:
    with running(".venv/bin/labkit", "start") as (process, _):
        for file in (state / "jupyter").glob("jpserver-*.json"):
            os.kill(int(re.search(r"\d+", file.name)[0]), signal.SIGKILL)
        process.wait(timeout=10)
        assert process.returncode == 2
    with running(".venv/bin/labkit", "start") as (_, lines):
        assert lines[-1].startswith("JupyterLab runs, Ctrl-C stops it: ")


def test_it_is_laid_out_at_the_first_start_and_never_again(state: Path) -> None:
    """A browser lays it out from this; what it then writes is the student's."""
    stored = state / "jupyter/config/lab/workspaces"
    with running(".venv/bin/labkit", "start") as (_, lines):
        assert URL.search(lines[-1])
        [workspace] = stored.iterdir()
        assert {"notebook:start.ipynb", "terminal:student"} <= set(json.loads(workspace.read_text())["data"])
    mine = json.dumps({"data": {"layout-restorer:data": {}}, "metadata": {"id": "default"}})
    workspace.write_text(mine)
    with running(".venv/bin/labkit", "start") as (_, lines):
        assert URL.search(lines[-1])
        assert workspace.read_text() == mine


def test_a_server_that_cannot_start_is_one_line_that_names_the_log(state: Path) -> None:
    (state / "jupyter").mkdir()
    (state / "jupyter" / "jupyter_cookie_secret").mkdir()  # Jupyter wants to read a file there
    done = subprocess.run([".venv/bin/labkit", "start"], cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"remedy: read {state}/jupyter.log" in done.stderr
