"""What the first line of a `%%lab` cell says, and scripts of several such cells."""

import pytest

from labkit.course.magics import Cell, parse, split
from labkit.errors import LabError


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("", (None, None)),
        ("--fails", ("", None)),
        ('--fails "No such file"', ("No such file", None)),
        ("--user somebody", (None, "somebody")),
        ('--user somebody --fails "no"', ("no", "somebody")),
    ],
)
def test_the_line_says_about_failing_and_as_whom(line: str, meant: tuple[str | None, str | None]) -> None:
    assert parse(line) == meant


@pytest.mark.parametrize("line", ["--user", "--fail", "--fails a b", "somebody"])
def test_another_line_is_refused_with_what_there_is(line: str) -> None:
    with pytest.raises(LabError, match="write %%lab, %%lab --fails"):
        parse(line)


def test_a_script_without_such_a_line_is_one_cell() -> None:
    assert list(split("a\nb", Cell("", "words", "somebody"))) == [Cell("a\nb", "words", "somebody")]


def test_a_line_in_a_script_begins_another_cell() -> None:
    script = "a\n%%lab --user somebody\nb\nc\n%%lab --fails no\nd"
    assert list(split(script, Cell(""))) == [Cell("a\n"), Cell("b\nc\n", None, "somebody"), Cell("d", "no")]


def test_a_script_that_begins_with_such_a_line_has_no_empty_cell_before_it() -> None:
    assert list(split("%%lab --user somebody\na\n", Cell("", "words"))) == [Cell("a\n", None, "somebody")]
