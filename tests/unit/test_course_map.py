"""The course map: all labs, found by id, refused by name."""

import re
from pathlib import Path

import pytest

from labkit.course import course_map
from labkit.errors import LabError


def test_the_course_has_its_26_labs_and_some_more_each_id_once():
    ids = [lab.id for lab in course_map.LABS]
    assert len(ids) == len(set(ids)) >= 26
    assert all(re.fullmatch(r"\d\.\d", one) for one in ids)
    assert ids == sorted(ids)


def test_an_unknown_lab_is_refused_with_those_near_it():
    with pytest.raises(LabError) as raised:
        course_map.find("2.9")
    assert "2.9" in str(raised.value)
    assert "2.1, 2.2, 2.3" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("nonsense", ["", "..", "cgroups", "2", "21"])
def test_nonsense_is_refused_in_one_line(nonsense):
    with pytest.raises(LabError) as raised:
        course_map.find(nonsense)
    assert "\n" not in str(raised.value)


def test_a_lab_without_a_notebook_file_is_not_there_yet(tmp_path: Path):
    lab = course_map.find("2.1")
    assert lab.notebook(tmp_path) is None
    (tmp_path / "cgroups").mkdir()
    (tmp_path / "cgroups" / "2.1-cgroups.ipynb").touch()
    assert lab.notebook(tmp_path) == tmp_path / "cgroups" / "2.1-cgroups.ipynb"
    assert course_map.written(tmp_path) == (lab,)
