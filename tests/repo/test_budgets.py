"""How long a module, a function and a cell may be, what is documented, and where what may be used."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "labkit").rglob("*.py"))
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]

PLACES = {
    "ctypes": {"kernel/syscalls.py", "kernel/launcher.py"},
    "subprocess": {"kernel/commands.py", "kernel/processes.py"},
    "pyroute2": {"kernel/network.py"},
    "ipywidgets": {"show/live.py"},
    "anywidget": {"show/live.py"},
}
"""What may be imported only there; kernel/network*.py counts as kernel/network.py."""


def name(module: Path) -> str:
    return module.relative_to(ROOT / "labkit").as_posix()


def tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(), str(module))


def functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its signature and docstring: what one has to follow."""
    documented = ast.get_docstring(function) is not None
    body = function.body[1:] if documented else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def imported(module: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_is_at_most_450_lines_long(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 450


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_function_is_at_most_50_lines_long(module: Path) -> None:
    assert {f.name: body_lines(f) for f in functions(module) if body_lines(f) > 50} == {}


def test_the_median_function_is_at_most_10_lines_long() -> None:
    assert median(body_lines(f) for module in MODULES for f in functions(module)) <= 10


def public(module: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield public functions and classes, and the public methods of public classes."""
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef) and not m.name.startswith("_"))


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_everything_public_has_a_docstring(module: Path) -> None:
    assert ast.get_docstring(tree(module))
    overloads = {n.name for n in public(module) if any("overload" in ast.unparse(d) for d in n.decorator_list)}
    assert [n.name for n in public(module) if not ast.get_docstring(n) and n.name not in overloads] == []


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_every_argument_and_result_is_annotated(module: Path) -> None:
    bare = []
    for function in functions(module):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        bare += [f"{function.name}({a.arg})" for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        bare += [f"{function.name} ->"] if function.returns is None else []
    assert bare == []


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_what_has_one_place_is_used_only_there(module: Path) -> None:
    place = "kernel/network.py" if name(module).startswith("kernel/network") else name(module)
    assert {what for what in imported(module) & set(PLACES) if place not in PLACES[what]} == set()


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_the_library_prints_nothing(module: Path) -> None:
    calls = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"]
    assert [call.lineno for call in calls] == []


def test_the_launcher_imports_the_standard_library_only() -> None:
    assert imported(ROOT / "labkit/kernel/launcher.py") <= sys.stdlib_module_names


def cells(notebook: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == kind]


def test_the_three_labs_are_there() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == ["2.1", "2.2", "2.3"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_it_has_12_to_25_code_cells(self, notebook: Path) -> None:
        assert 12 <= len(cells(notebook, "code")) <= 25

    def test_nine_cells_of_ten_have_at_most_6_lines_and_none_more_than_10(self, notebook: Path) -> None:
        lengths = [len(source.strip().splitlines()) for source in cells(notebook, "code")]
        assert max(lengths) <= 10
        assert sum(length <= 6 for length in lengths) >= 0.9 * len(lengths)

    def test_a_prose_cell_has_at_most_60_words(self, notebook: Path) -> None:
        prose = [" ".join(line for line in source.splitlines() if not line.startswith("|")) for source in cells(notebook, "markdown")]
        assert [text[:60] for text in prose if len(text.split()) > 60] == []

    def test_a_cell_has_no_def_print_sleep_try_or_subprocess(self, notebook: Path) -> None:
        python = [source for source in cells(notebook, "code") if not source.startswith("%%")]
        banned = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Try)
        for source in python:
            nodes = list(ast.walk(ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%")))))
            assert not any(isinstance(node, banned) for node in nodes), source
            assert not {getattr(node, "id", "") for node in nodes} & {"print", "sleep", "subprocess"}, source

    def test_it_was_executed_from_top_to_bottom(self, notebook: Path) -> None:
        code = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))

    def test_its_stored_outputs_belong_to_its_sources(self, notebook: Path) -> None:
        from labkit.course.render import source_sha256

        content = json.loads(notebook.read_text())
        assert content["metadata"]["labkit"]["source_sha256"] == source_sha256(content)

    def test_it_holds_no_error_and_no_time_stamp(self, notebook: Path) -> None:
        content = json.loads(notebook.read_text())
        code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        assert [o["ename"] for cell in code for o in cell["outputs"] if o["output_type"] == "error"] == []
        assert "papermill" not in content["metadata"]
        assert [cell["metadata"] for cell in code if {"papermill", "execution", "ExecuteTime"} & set(cell["metadata"])] == []

    def test_its_last_cell_closes_the_lab(self, notebook: Path) -> None:
        assert cells(notebook, "code")[-1].strip().splitlines()[-1].startswith("lab.close()")
