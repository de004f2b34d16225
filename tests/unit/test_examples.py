"""Files that a lab gives: by the lab and by the shell lines they are the same, and what a student changed stays."""

import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from labkit.course import course_map, examples
from labkit.errors import LabError

FILES = {"one/Dockerfile": "FROM alpine\nRUN echo $HOME > '/a b'\n", "one/run": "#!/bin/sh -e\necho ran\n"}
LABS = [import_module(f"labkit.course.lab_{lab.id.replace('.', '_')}") for lab in course_map.written()]
GIVEN = [(module, name) for module in LABS for name in getattr(module, "EXAMPLES", {})]


def test_the_shell_lines_write_what_is_given(tmp_path: Path) -> None:
    (tmp_path / "typed").mkdir()
    (tmp_path / "given").mkdir()
    subprocess.run(["bash", "-e", "-c", examples.script(FILES)], cwd=tmp_path / "typed", check=True)
    view = examples.give(tmp_path / "given", FILES)
    for path, text in FILES.items():
        for place in ("typed", "given"):
            assert (tmp_path / place / path).read_text() == text
            assert bool((tmp_path / place / path).stat().st_mode & 0o111) == text.startswith("#!")
    assert view.text.startswith("$LAB/one/Dockerfile\n  FROM alpine\n")


def test_what_is_there_already_stays_and_is_shown_as_it_is(tmp_path: Path) -> None:
    examples.give(tmp_path, FILES)
    (tmp_path / "one/Dockerfile").write_text("FROM debian\n")
    assert "FROM debian" in examples.give(tmp_path, FILES).text
    assert (tmp_path / "one/Dockerfile").read_text() == "FROM debian\n"


def test_an_example_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(LabError, match=r"no example 'two'.*it has one"):
        examples.find({"one": FILES}, "two")


@pytest.mark.parametrize(("module", "name"), GIVEN, ids=[f"{module.__name__[-3:]}-{name}" for module, name in GIVEN])
def test_each_example_lies_in_a_directory_of_its_own(module, name: str) -> None:
    assert {Path(path).parts[0] for path in module.EXAMPLES[name]} == {name}
