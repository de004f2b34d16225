"""Messages and plain tables."""

import pytest

from labkit.show import notice, table
from labkit.show.notices import KINDS


def test_a_check_says_its_kind_by_sign_and_word():
    view = notice("not yet", "mycgroup is frozen", ["measured: freezer.state is THAWED", "cause: nobody wrote FROZEN"])
    assert view.text == (
        "○ not yet   mycgroup is frozen\n            measured: freezer.state is THAWED\n            cause: nobody wrote FROZEN"
    )
    assert "○ not yet" in view.html


def test_no_two_kinds_are_told_apart_by_colour_alone():
    words = [word for _, word, _ in KINDS.values()]
    assert len(set(words)) == len(words)


def test_a_kind_that_is_not_known_is_shown_by_its_own_word():
    assert notice("<odd>", "title").text == "· <odd>     title"
    assert "&lt;odd&gt;" in notice("<odd>", "title").html


def test_typed_lines_stay_as_they_are():
    view = notice("solution", "Freeze it", ["for x in a b; do", "  echo $x", "done"])
    assert view.text.split("\n")[1:] == ["            for x in a b; do", "              echo $x", "            done"]
    assert ">for x in a b; do</div>" in view.html
    assert ">  echo $x</div>" in view.html
    assert ">done</div>" in view.html


def test_a_card_is_headed_by_its_title():
    view = notice("card", "Lab 2.1: Control groups", ["- freeze a process", "", "Shell cells run in $LAB."])
    assert view.text == "Lab 2.1: Control groups\n───────────────────────\n  - freeze a process\n\n  Shell cells run in $LAB."
    assert "• freeze a process" in view.html


def test_a_table_lines_up_and_counts_what_it_leaves_out():
    view = table(("name", "value"), [(f"row{number}", number) for number in range(100)], title="Many", limit=2)
    assert view.text == "Many\nname  value\n────  ─────\nrow0  0\nrow1  1\n… 98 more rows"


@pytest.mark.parametrize("header", [("a",), ("a", "b")])
def test_an_empty_table_says_so(header):
    assert table(header, []).text.endswith("no rows")


def test_a_long_line_of_a_solution_may_be_typed_as_it_is_shown():
    line = "  for directory in $MEMORY/jail $PIDS/jail $FREEZER/jail; do echo $! > $directory/cgroup.procs; done"
    shown = [part[12:] for part in notice("solution", "Jail", [line]).text.split("\n")[1:]]
    assert shown == [
        "  for directory in $MEMORY/jail $PIDS/jail $FREEZER/jail; do echo \\",
        "      $! > $directory/cgroup.procs; done",
    ]


def test_a_path_within_a_sentence_of_a_table_may_be_broken_at_its_slashes():
    found = table(("problem",), [("$LAB/tampered/blobs/sha256/0cc46d7a11dd is not what its name says",)])
    assert "blobs/<wbr>sha256/<wbr>0cc46d7a11dd is not" in found.html
