"""The stored outputs of each lab are what the kernel says today."""

import pytest

from labkit.course import course_map
from labkit.course.validate import validate


@pytest.mark.parametrize("lab", course_map.written(), ids=lambda lab: lab.id)
def test_a_fresh_run_says_what_is_stored(lab: course_map.CourseLab, capsys: pytest.CaptureFixture[str]):
    result = validate(lab.notebook())
    with capsys.disabled():
        print(f"\n{str(result).splitlines()[0]}")
    assert result.passed, str(result)
