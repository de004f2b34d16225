"""Run the notebooks again and compare what they print with what is stored, by nbval and the table of canonical.py."""

from __future__ import annotations

import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.course import canonical
from labkit.course.render import clean_up, own_progress, source_sha256
from labkit.errors import LabError
from labkit.kernel import commands

if TYPE_CHECKING:
    from nbformat import NotebookNode

_UNCOMPARED_TAGS = {"nbval-ignore-output", "nbval-skip", "skip"}
_UNCOMPARED_MARKS = ("NBVAL_IGNORE_OUTPUT", "NBVAL_SKIP", "PYTEST_VALIDATE_IGNORE_OUTPUT")


@dataclass(frozen=True)
class Coverage:
    """How much of a stored notebook a validation really compares.

    Attributes:
        code: its code cells.
        printing: those that have an output.
        compared: those whose output is compared.
    """

    code: int
    printing: int
    compared: int

    @property
    def share(self) -> float:
        """Compared cells among the printing ones, 0 to 1; 0 where nothing prints."""
        return self.compared / self.printing if self.printing else 0.0


@dataclass(frozen=True)
class Validation:
    """How one notebook compares with a fresh run.

    Attributes:
        path: its file.
        coverage: what was compared.
        failures: what differs, each with its cell.
    """

    path: Path
    coverage: Coverage
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.failures

    def __str__(self) -> str:
        counts = f"{self.coverage.compared} of {self.coverage.printing} printing cells compared"
        if self.passed:
            return f"{self.path.name}: as stored; {counts}"
        return "\n".join([f"{self.path.name}: differs in {len(self.failures)} of {self.coverage.code} cells; {counts}", *self.failures])


def coverage(notebook: NotebookNode) -> Coverage:
    """Count which cells of a notebook a validation compares."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    printing = [cell for cell in code if cell["outputs"]]
    return Coverage(len(code), len(printing), sum(_is_compared(cell) for cell in printing))


def validate(path: Path) -> Validation:
    """Run a notebook in a fresh kernel and compare each output with the stored one.

    Shell: pytest --nbval --nbval-sanitize-with FILE NOTEBOOK

    Raises:
        LabError: there is no such notebook, it was never executed, or nbval itself could not run.
    """
    import nbformat

    path = path.resolve()
    if not path.is_file():
        raise LabError(f"there is no notebook {path}")
    notebook = nbformat.read(path, as_version=4)
    counts = coverage(notebook)
    if not counts.compared:
        raise LabError(f"{path.name}: no output is stored that could be compared", remedy="labkit render it first")
    failures = _failures(path)
    if notebook.metadata.get("labkit", {}).get("source_sha256") != source_sha256(notebook):
        failures = (*failures, "  the stored outputs belong to other sources: labkit render it")
    return Validation(path, counts, failures)


def _is_compared(cell: NotebookNode) -> bool:
    tagged = _UNCOMPARED_TAGS & set(cell["metadata"].get("tags", []))
    marked = any(mark in cell["source"] for mark in _UNCOMPARED_MARKS)
    return cell["execution_count"] is not None and not tagged and not marked


def _failures(path: Path) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="labkit-validate-") as directory, own_progress() as environment:
        results = Path(directory) / "results.xml"
        sanitize = canonical.sanitize_file(Path(directory) / "sanitize.cfg")
        options = ["--nbval", "--nbval-current-env", f"--nbval-sanitize-with={sanitize}", f"--junit-xml={results}"]
        quiet = ["-q", "--color=no", "-p", "no:cacheprovider", "-o", "addopts=", f"--rootdir={path.parent}"]
        done = commands.run(
            [sys.executable, "-m", "pytest", *options, *quiet, path], cwd=path.parent, env=environment, check=False
        )
        if done.status not in (0, 1) or not results.exists():
            clean_up()
            raise LabError(f"nbval could not run {path.name}: {(done.stderr or done.stdout).strip()[-400:]}")
        failures = tuple(_failed_cells(results))
    if failures:
        clean_up()
    return failures


def _failed_cells(results: Path) -> list[str]:
    tree = ElementTree.parse(results)  # noqa: S314 - pytest wrote it a moment ago
    failed = []
    for case in tree.iter("testcase"):
        for problem in [*case.iter("failure"), *case.iter("error")]:
            text = (problem.text or problem.get("message") or "").strip()
            failed.append(f"  {case.get('name')}:\n" + "\n".join(f"    {line}" for line in text.splitlines()[:40]))
    return failed
