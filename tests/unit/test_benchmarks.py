"""The arithmetic and the page of the benchmarks; what they measure is never a test."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import measure, table
from benchmarks.measure import Result, Row

LIMITS = sorted((Path(measure.__file__).parent / "limits").glob("*.c"))


def test_contestants_take_turns_and_the_first_round_does_not_count():
    turns = []

    def contestant(name, seconds):
        return lambda: turns.append(name) or seconds[turns.count(name) - 1]

    row = Row("work", 1.5, "peer", rounds=3)
    result = measure.alternate(row, {"labkit": contestant("a", [99, 3, 1, 2]), "peer": contestant("b", [99, 4, 4, 4])})
    assert turns == ["a", "b"] * 4
    assert (dict(result.seconds), result.ratio("peer"), result.reached) == ({"labkit": 2, "peer": 4}, 0.5, True)


@pytest.mark.parametrize(("labkit", "reached"), [(0.014, True), (0.016, False), (0.031, False)])
def test_a_target_is_a_multiple_of_another_and_may_be_a_time_too(labkit, reached):
    row = Row("work", 1.5, "limit", limit_seconds=0.03)
    assert Result(row, {"labkit": labkit, "limit": 0.01}).reached is reached


def test_the_page_shows_each_ratio_and_says_why_a_target_is_missed():
    missed = Result(Row("slow work", 1.1, "limit", reason="it counts its fingers"), {"labkit": 0.002, "limit": 0.001})
    text = table.page([missed, Result(Row("quick work", None, "", limit_seconds=1), {"labkit": 2.5e-6})])
    assert "| slow work | 2 ms | limit 1 ms (**2.00**) | 1.1 of limit | **no** |" in text
    assert "| quick work | 2.5 µs | - | 1 s | yes |" in text
    assert "- slow work: it counts its fingers." in text


def test_a_row_without_a_target_says_so():
    assert table.cells(Result(Row("work", None, ""), {"labkit": 1.0}))[-2:] == ("-", "no target")


def test_contestants_without_labkit_have_a_table_of_their_own_with_multiples_of_the_first():
    text = table.page([Result(Row("start", None, "", first="runc"), {"docker": 0.3, "runc": 0.1})])
    assert "## start\n\n| by | time | times as long as runc |" in text
    assert text.index("| runc | 100 ms | 1.00 |") < text.index("| docker | 300 ms | 3.00 |")


@pytest.mark.parametrize("source", LIMITS, ids=lambda path: path.stem)
def test_each_limit_compiles_without_a_warning(source, tmp_path):
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "limit"), str(source)], check=True)
