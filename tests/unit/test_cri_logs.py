"""The log format of the CRI, and the table of its messages."""

import pytest

from labkit.errors import LabError
from labkit.runtimes.cri import logs, messages
from labkit.runtimes.cri.logs import Line

TIME = "2026-11-25T09:00:00.000000000Z"


def test_whole_lines_have_their_time_and_stream():
    text = f"{TIME} stdout F one\n{TIME} stderr F two  words\n{TIME} stdout F \n"
    assert list(logs.parse(text)) == [Line(TIME, "stdout", "one"), Line(TIME, "stderr", "two  words"), Line(TIME, "stdout", "")]


def test_the_parts_of_a_long_line_are_put_together_for_each_stream():
    text = f"{TIME} stdout P one\n{TIME} stderr F between\n{TIME} stdout P  and\n{TIME} stdout F  two\n{TIME} stdout P rest\n"
    assert [line.text for line in logs.parse(text)] == ["between", "one and two", "rest"]


def test_a_line_that_is_still_being_written_is_left_out():
    assert [line.text for line in logs.parse(f"{TIME} stdout F one\n{TIME} std")] == ["one"]


@pytest.mark.parametrize("line", ["words", f"{TIME} stdin F one", f"{TIME} stdout X one", '{"log": "docker\'s"}'])
def test_another_format_is_refused_with_the_number_of_the_line(line: str):
    with pytest.raises(LabError, match="web:2: not a line of the CRI logging format"):
        list(logs.parse(f"{TIME} stdout F one\n{line}\n", "web"))


def test_a_message_is_on_the_wire_as_the_interface_numbers_it():
    request = messages.classes()["StopContainerRequest"](container_id="ab", timeout=5)
    assert request.SerializeToString() == b"\x0a\x02ab\x10\x05"
    config = messages.classes()["PodSandboxConfig"](labels={"k": "v"})
    assert config.SerializeToString() == b"\x32\x06\x0a\x01k\x12\x01v"


def test_no_message_has_a_number_twice():
    for name, cls in messages.classes().items():
        numbers = [field.number for field in cls.DESCRIPTOR.fields]
        assert len(numbers) == len(set(numbers)), name
