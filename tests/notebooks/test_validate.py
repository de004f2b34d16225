"""The stored outputs of each lab are what the kernel says today."""

from collections.abc import Callable

import pytest

from labkit.course import course_map
from labkit.course.validate import Validation

Run = Callable[[course_map.CourseLab], tuple[Validation, list[dict]]]


@pytest.mark.parametrize("lab", course_map.written(), ids=lambda lab: lab.id)
def test_a_fresh_run_says_what_is_stored(lab: course_map.CourseLab, fresh_run: Run, told: Callable[[str, str], None]):
    result, _ = fresh_run(lab)
    told("a fresh run", str(result).splitlines()[0])
    assert result.passed, str(result)
