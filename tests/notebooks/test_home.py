"""The home page: stored as it runs, with a link to each lab that is there."""

import re

import nbformat
import pytest

from labkit.course import course_map
from labkit.course.render import source_sha256
from labkit.course.validate import validate


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(course_map.HOME, as_version=4)


def test_a_fresh_run_says_what_is_stored() -> None:
    found = validate(course_map.HOME)
    assert found.passed, found


def test_it_is_stored_executed_and_in_few_lines(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert max(len(cell.source.splitlines()) for cell in code) <= 3
    assert notebook.metadata["labkit"]["source_sha256"] == source_sha256(notebook)
    silent = [cell.source for cell in code if "nbval-ignore-output" in cell.metadata.get("tags", [])]
    assert silent == ["home.doctor()"]


def test_its_map_links_to_every_notebook_that_is_there(notebook: nbformat.NotebookNode) -> None:
    [drawn] = [cell.outputs[0].data["text/html"] for cell in notebook.cells if cell.source == "home.chapters()"]
    links = re.findall(r'<a href="([^"]+)">', drawn)
    assert links == [lab.file for lab in course_map.written()], "labkit render start"
    assert all((course_map.NOTEBOOKS / link).is_file() for link in links)
    assert not re.search(r"<(script|style|svg|iframe)\b|\son\w+=", drawn)
