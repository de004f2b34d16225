"""A sequence has one step for each thing that was done, the same in the text and in the picture."""

import base64
import html
import re

import pytest

from labkit.kernel.processes.events import Event, Record
from labkit.show.sequence import sequence, short, steps

RUN = Record(
    {10: "python", 20: "dockerd"},
    (
        Event("fork", 0.001, 10, 11),
        Event("exec", 0.002, 11, comm="docker", argv=("docker", "run", "busybox")),
        Event("call", 0.003, 11, 20, address="/run/docker.sock"),
        Event("fork", 0.004, 20, 21, argv=("runc", "create")),
        Event("comm", 0.005, 21, comm="runc:[2:INIT]", argv=("runc", "init")),
        Event("exec", 0.006, 21, comm="true", argv=("true",)),
        Event("exit", 0.007, 21),
        Event("exit", 0.008, 11, status=-9),
    ),
)


def test_a_fork_and_the_exec_after_it_are_one_step_and_other_forks_are_steps_of_their_own():
    assert [(step.source, step.target, step.said) for step in steps(RUN)] == [
        ("python", "docker", "starts pid 11: docker run busybox"),
        ("docker", "dockerd", "speaks to dockerd (pid 20) at /run/docker.sock"),
        ("dockerd", "runc", "forks pid 21"),
        ("runc", "runc init", "calls itself runc:[2:INIT]"),
        ("runc init", "true", "becomes true"),
        ("true", "true", "ends, status 0"),
        ("docker", "docker", "ends, signal 9"),
    ]


def test_the_picture_says_what_the_text_says_and_so_does_its_alternative_text():
    view = sequence(RUN)
    assert all(len(line) <= 80 for line in view.text.splitlines())
    svg = base64.b64decode(re.search(r"base64,([^\"]+)", view.html)[1]).decode()
    written = html.unescape(" ".join(re.findall(r">([^<>]+)</text>", svg)))
    for step in steps(RUN):
        assert f"{step.pid} {step.said}" in written
        assert f"{step.at * 1000:.1f}" in written
    assert {"python", "docker", "dockerd", "runc", "runc init", "true"} <= set(re.findall(r">([a-z ]+)</text>", svg))
    assert html.escape(view.text.splitlines()[2]) in view.html


def test_a_process_that_waits_before_its_exec_is_seen_before_and_one_that_executes_itself_again_is_one_step():
    events = (
        Event("fork", 0.0, 1, 2),
        Event("exec", 0.001, 2, argv=("crun", "create", "web")),
        Event("exec", 0.002, 2, argv=("crun", "create", "web")),
        Event("fork", 0.003, 2, 3),
        Event("exec", 0.5, 3, argv=("sleep", "1000")),
    )
    assert [(step.source, step.target, step.said) for step in steps(Record({1: "sh"}, events))] == [
        ("sh", "crun", "starts pid 2: crun create web, which executes itself once more"),
        ("crun", "crun", "forks pid 3"),
        ("crun", "sleep", "becomes sleep 1000"),
    ]


def test_what_one_process_starts_again_and_again_is_counted():
    events = [Event("fork", 0, 1, 2), Event("exec", 0, 2, argv=("netavark",))]
    for number in range(3, 23):
        events += [Event("fork", number, 2, number), Event("exec", number, number, argv=("iptables", "-S")), Event("exit", number, number)]
    said = [step.said for step in steps(Record({1: "podman"}, tuple(events)))]
    assert said == [
        "starts pid 2: netavark",
        "starts pid 3: iptables -S; it ends, status 0",
        "starts iptables 19 times more, the last of them ends at 22000.0",
    ]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("docker", "run", "busybox", "true"), "docker run busybox true"),
        (("/usr/sbin/runc", "--root", "/run" * 12, "create", "--bundle", "/b", "a" * 64), "runc … create … aaaaaaaaaaaa…"),
        (("/usr/bin/containerd-shim-runc-v2", "-address", "/run" * 12, "start"), "containerd-shim-runc-v2 … start"),
        (("sh", "-c", "x" * 200), "sh … " + "x" * 27 + "…" + "x" * 31),
    ],
)
def test_a_long_command_line_keeps_program_verb_and_last_word(argv, line):
    assert short(argv) == line


def test_what_is_missing_is_said():
    record = Record({1: "bash"}, (Event("fork", 0, 1, 2), Event("exec", 0, 2)), lost=7)
    assert "starts pid 2: a program that had ended before it could be read" in re.sub(r"\s+", " ", sequence(record).text)
    assert "the kernel had to drop 7 events" in sequence(record).text
    assert "1 program had ended before the command line could be read" in sequence(record).text
    assert sequence(Record()).text == "nothing was started"


def test_names_from_outside_are_escaped():
    record = Record({1: "ba\x1bsh"}, (Event("fork", 0, 1, 2), Event("exec", 0, 2, argv=("<script>alert(1)</script>",))))
    assert "<script>" not in sequence(record).html
    assert "\x1b" not in sequence(record).text
