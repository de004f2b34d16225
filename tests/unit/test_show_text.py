"""Names made printable, cut, wrapped and set in columns."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.show.text import clean, columns, count, cut, fitted, natural, pad, width, wrap


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mycgroup", "mycgroup"),
        ("Größe 日本", "Größe 日本"),
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("evil\u202etxt", "evil\\u202etxt"),
        ("bad\udcff", "bad\\udcff"),
        (7, "7"),
    ],
)
def test_what_does_not_print_is_shown_as_its_escape(text, shown):
    assert clean(text) == shown


def test_a_long_name_keeps_both_ends():
    assert cut("/sys/fs/cgroup/freezer/lab-2.1/mycgroup", 21) == "/sys/fs/cg…1/mycgroup"
    assert cut("short", 5) == "short"
    assert cut("日本日本日本", 6) == "日…本"


@settings(deadline=None)  # a slow machine is no fault of the text
@given(st.text(), st.integers(0, 40))
def test_a_cut_name_is_never_wider_than_its_room(text, room):
    assert width(cut(text, room)) <= room


@settings(deadline=None)  # a slow machine is no fault of the text
@given(st.text(max_size=300), st.integers(8, 60))
def test_wrapped_lines_fit_and_lose_no_letter(text, room):
    lines = wrap(text, room, hanging="  ")
    assert all(width(line) <= room for line in lines)
    assert "".join(lines).replace(" ", "") == clean(text).replace(" ", "")


@settings(deadline=None)  # a slow machine is no fault of the text
@given(st.lists(st.lists(st.text(max_size=60), min_size=3, max_size=3), max_size=6), st.integers(12, 88))
def test_columns_fit_whatever_is_in_them(rows, room):
    assert all(width(line) <= room for line in columns(rows, room, header=("a", "b", "c")))


def test_columns_cut_only_the_widest():
    lines = columns([["mycgroup", "x" * 100]], 30, header=["name", "value"])
    assert lines == ["name      value", "────────  ────────────────────", "mycgroup  xxxxxxxxxx…xxxxxxxxx"]


def test_widths_are_taken_from_the_widest_columns():
    assert fitted([3, 50, 50], 43) == [3, 20, 20]
    assert fitted([3, 4], 20) == [3, 4]


def test_numbers_in_names_sort_as_numbers():
    assert sorted(["veth10", "veth2", "veth1", "a"], key=natural) == ["a", "veth1", "veth2", "veth10"]


def test_one_and_many_have_their_own_word():
    assert count(1, "process", "processes") == "1 process"
    assert count(1234, "cgroup") == "1,234 cgroups"
    assert pad("日本", 6) == "日本  "
