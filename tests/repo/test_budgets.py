"""How long a module and a function may be, what is documented, and where what may be used."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from labkit.course import course_map

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "labkit").rglob("*.py"))
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]

PLACES = {
    "ctypes": {"kernel/syscalls.py", "kernel/processes/launcher.py", "appc/root.py"},
    "subprocess": {"kernel/commands.py", "kernel/processes/launching.py"},
    "pyroute2": {"kernel/network"},
    "ipywidgets": {"show/live.py"},
    "anywidget": {"show/live.py"},
}
"""What may be imported only there; all of kernel/network/ counts as kernel/network."""


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
    place = "kernel/network" if name(module).startswith("kernel/network") else name(module)
    assert {what for what in imported(module) & set(PLACES) if place not in PLACES[what]} == set()


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_the_library_prints_nothing(module: Path) -> None:
    calls = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"]
    assert [call.lineno for call in calls] == []


def test_the_launcher_imports_the_standard_library_only() -> None:
    """It runs under `python -I -S`, where there is nothing else; labkit is named in it for those who import it from outside."""
    siblings = {"ending", "execution"}
    assert imported(ROOT / "labkit/kernel/processes/launcher.py") <= sys.stdlib_module_names | siblings | {"labkit"}
    for sibling in siblings:
        assert imported(ROOT / f"labkit/kernel/processes/{sibling}.py") <= sys.stdlib_module_names


def test_process_1_of_a_pod_imports_the_standard_library_only() -> None:
    """It, too, runs under `python -I -S`."""
    assert imported(ROOT / "labkit/appc/init.py") <= sys.stdlib_module_names | {"program", "root", "labkit"}
    assert imported(ROOT / "labkit/appc/program.py") <= sys.stdlib_module_names | {"root", "labkit"}
    assert imported(ROOT / "labkit/appc/root.py") <= sys.stdlib_module_names


def test_the_notebooks_that_are_there_are_those_of_the_course_map() -> None:
    labs = [path for path in NOTEBOOKS if path != course_map.HOME]
    assert sorted(path.name[:3] for path in labs) == sorted(lab.id for lab in course_map.written())
