"""The trace: who collects what."""

from labkit import trace


def test_an_operation_goes_to_every_trace_that_is_open():
    with trace.collecting() as outer:
        trace.record("mkdir a", calls=["mkdir(a)"])
        with trace.collecting() as inner:
            trace.record("echo 1 > a/x", writes=[("a/x", "1")])
    assert outer.shell() == "mkdir a\necho 1 > a/x"
    assert inner.operations == [trace.Operation("echo 1 > a/x", (("a/x", "1"),), ())]


def test_after_the_end_nothing_is_collected_and_ending_twice_does_nothing():
    opened = trace.start()
    trace.stop(opened)
    trace.stop(opened)
    trace.record("mkdir a")
    assert opened.operations == []


def test_two_traces_that_hold_the_same_are_ended_each_by_itself():
    first, second = trace.start(), trace.start()
    trace.stop(first)
    trace.record("mkdir a")
    trace.stop(second)
    assert (first.shell(), second.shell()) == ("", "mkdir a")


def test_what_happens_in_silence_is_in_no_trace_and_the_silence_ends_after_an_error():
    with trace.collecting() as lines:
        try:
            with trace.silent(), trace.silent():
                trace.record("rm a")
                raise ZeroDivisionError
        except ZeroDivisionError:
            trace.record("mkdir a")
    assert lines.shell() == "mkdir a"


def test_a_trace_ended_during_a_silence_stays_ended():
    lines = trace.start()
    with trace.silent():
        trace.stop(lines)
    trace.record("mkdir a")
    assert lines.operations == []


def test_an_operation_without_a_shell_line_adds_no_empty_line():
    with trace.collecting() as lines:
        trace.record("", calls=["setns(3)"])
        trace.record("true")
    assert lines.shell() == "true"
