"""The tables of rkt: tabs, ages, times."""

import time

import pytest

from labkit.appc.columns import ago, in_full, tabbed


def test_columns_reach_the_tab_stop_after_their_longest_cell() -> None:
    rows = [["UUID", "APP", "STATE"], ["5bc080ca", "redis", "running"], ["", "etcd", ""]]
    assert tabbed(rows) == "UUID\t\tAPP\tSTATE\n5bc080ca\tredis\trunning\n\t\tetcd\t"


def test_a_table_of_one_column_and_an_empty_one_have_no_tabs() -> None:
    assert (tabbed([["UUID"]]), tabbed([])) == ("UUID", "")


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (0.4, "now"),
        (1, "1 second ago"),
        (59.9, "59 seconds ago"),
        (60, "1 minute ago"),
        (7200, "2 hours ago"),
        (86400, "1 day ago"),
        (8 * 86400, "1 week ago"),
        (31 * 86400, "1 month ago"),
        (800 * 86400, "2 years ago"),
        (-5, "now"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(age: float, words: str) -> None:
    assert ago(1e9 - age, 1e9) == words


def test_a_time_that_nobody_knows_is_long_ago() -> None:
    assert (ago(None), in_full(None)) == ("a long while ago", "")


def test_a_time_in_full_has_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert in_full(1467912835.32) == "2016-07-07 17:33:55.32 +0000 UTC"
    assert in_full(1467912835) == "2016-07-07 17:33:55 +0000 UTC"
