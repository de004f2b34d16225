"""What every notebook of the course keeps to, read from its file: no kernel runs here."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from labkit.course import course_map, validate
from labkit.course.render import source_sha256

LABS = course_map.written()
WIDTH = 80


@pytest.fixture(params=LABS, ids=lambda lab: lab.id)
def lab(request: pytest.FixtureRequest) -> course_map.CourseLab:
    return request.param


@pytest.fixture
def notebook(lab: course_map.CourseLab) -> nbformat.NotebookNode:
    return nbformat.read(lab.notebook(), as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def is_shell(cell: nbformat.NotebookNode) -> bool:
    return cell.source.startswith("%%")


def words(source: str) -> int:
    """Count the words of running text: headings, tables, figures and code blocks are none."""
    source = re.sub(r"```.*?```", "", source, flags=re.DOTALL)
    lines = [line for line in source.splitlines() if not re.match(r"\s*(#|\||!\[|<img)", line)]
    return len(" ".join(lines).split())


def test_it_is_valid(notebook):
    nbformat.validate(notebook)


def test_it_was_executed_from_top_to_bottom(notebook):
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))


def test_no_cell_ended_with_an_error(notebook):
    failed = [cell.execution_count for cell in code(notebook) if any(output.output_type == "error" for output in cell.outputs)]
    assert failed == []


def test_the_outputs_belong_to_these_sources(notebook):
    assert notebook.metadata.get("labkit", {}).get("source_sha256") == source_sha256(notebook), "labkit render it"


def test_most_printing_cells_are_compared(notebook):
    coverage = validate.coverage(notebook)
    assert coverage.printing >= coverage.code // 2, "a cell shows its evidence"
    assert coverage.share >= 0.85, coverage


def test_a_cell_that_is_not_compared_says_why(notebook):
    silent = [cell for cell in code(notebook) if "nbval-ignore-output" in cell.metadata.get("tags", [])]
    assert all(any(tag.startswith("because:") for tag in cell.metadata.tags) for cell in silent), "a tag `because: ...` beside it"


def test_it_has_12_to_25_code_cells(notebook):
    assert 12 <= len(code(notebook)) <= 25


def test_nine_cells_of_ten_have_at_most_6_lines_and_none_over_10(notebook):
    lengths = [len(cell.source.strip().splitlines()) for cell in code(notebook)]
    assert max(lengths) <= 10
    assert sum(length <= 6 for length in lengths) >= 0.9 * len(lengths), lengths


def test_a_prose_cell_has_at_most_60_words(notebook):
    long = {cell.source[:40]: words(cell.source) for cell in prose(notebook) if words(cell.source) > 60}
    assert long == {}


def test_no_cell_programs(notebook):
    """def, print, sleep, try, loops over and subprocess: where a cell needs one, labkit lacks a verb."""
    for cell in code(notebook):
        if is_shell(cell):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Try | ast.While | ast.Lambda), cell.source
            name = getattr(getattr(node, "func", None), "id", "") or getattr(getattr(node, "func", None), "attr", "")
            assert name not in {"print", "sleep", "system", "Popen", "exec", "eval"}, cell.source
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert all(module == "labkit" for module in modules), cell.source


def test_it_begins_with_its_title_and_a_question_and_the_same_set_up_cell(notebook, lab):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert re.match(rf"# .*{re.escape(lab.id)}", first.source)
    opening = next(index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    assert "?" in "".join(cell.source for cell in notebook.cells[:opening])
    source = notebook.cells[opening].source.splitlines()
    assert re.fullmatch(r"from labkit import (expect, )?open_lab", source[0]), source
    assert [line for line in source[1:] if line.strip()] == [f'lab = open_lab("{lab.id}")']


def test_it_ends_with_close(notebook):
    assert code(notebook)[-1].source.strip() == "lab.close()"
    assert notebook.cells[-1].cell_type == "code"


def test_it_says_what_the_kernel_did_by_manual_pages(notebook):
    last = " ".join(cell.source for cell in prose(notebook)[-4:])
    assert len(set(re.findall(r"\b[a-z_]+\([1-9]\)", last))) >= 3


def test_it_has_sections_predictions_checks_and_an_exercise(notebook):
    text = "\n".join(cell.source for cell in notebook.cells)
    assert len(re.findall(r"(?m)^## ", text)) >= 4
    assert "lab.predict(" in text
    assert "lab.observe(" in text
    assert "lab.check(" in text
    assert re.search(r"(?im)^## .*(exercise|your turn|alone)", text)


def test_each_checkpoint_of_the_lab_is_asked_for(notebook, lab):
    from importlib import import_module

    module = import_module(f"labkit.course.lab_{lab.id.replace('.', '_')}")
    text = "\n".join(cell.source for cell in code(notebook))
    assert {checkpoint.id for checkpoint in module.CHECKPOINTS} == set(re.findall(r'lab\.check\("([^"]+)"\)', text))


def test_each_figure_is_there_and_has_an_alt_text(notebook, lab):
    text = "\n".join(cell.source for cell in prose(notebook))
    figures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text) + re.findall(r'<img alt="([^"]*)" src="([^"]+)"', text)
    assert figures, "a notebook shows its idea"
    for alt, path in figures:
        assert len(alt.split()) >= 4, path
        assert (Path(lab.notebook()).parent / path).is_file(), path


def _data(notebook: nbformat.NotebookNode, mime: str) -> list[str]:
    return [output.data[mime] for cell in code(notebook) for output in cell.outputs if mime in output.get("data", {})]


def test_text_outputs_fit_88_columns_without_escapes(notebook):
    streams = [output.text for cell in code(notebook) for output in cell.outputs if output.output_type == "stream"]
    for text in _data(notebook, "text/plain"):
        assert max((len(line) for line in text.splitlines()), default=0) <= WIDTH, text
    for text in [*_data(notebook, "text/plain"), *streams]:
        assert "\x1b" not in text, text


def test_html_outputs_survive_an_untrusted_notebook(notebook):
    for html in _data(notebook, "text/html"):
        assert not re.search(r"<(script|style|svg|iframe|object|form|link)\b|\son\w+=", html, re.IGNORECASE), html[:300]
        for image in re.findall(r"<img\b[^>]*>", html):
            assert re.search(r'\balt="[^"]+"', image), image[:200]


def test_it_keeps_no_trace_of_the_run(notebook):
    assert set(notebook.metadata) == {"kernelspec", "language_info", "labkit"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert not {"papermill", "execution"} & set(cell.metadata)
    assert not _data(notebook, "application/vnd.jupyter.widget-view+json")


def test_no_host_name_or_state_of_the_author_is_stored(notebook, lab):
    text = Path(lab.notebook()).read_text()
    assert not re.search(r"/work/|pytest-of-|labkit-progress-|(?<!\w)/root/", text)
