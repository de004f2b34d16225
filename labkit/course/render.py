"""Execute the notebooks and store what they really printed, so that a refresh without a change gives no diff."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import ledger
from labkit.course import canonical
from labkit.errors import LabError

if TYPE_CHECKING:
    from nbformat import NotebookNode

Report = Callable[[str], None]


@dataclass(frozen=True)
class Rendered:
    """What became of one notebook.

    Attributes:
        path: its file.
        cells: how many code cells ran.
        refreshed: numbers of the code cells, from 1, whose stored output is a new one.
        written: whether the file was replaced.
    """

    path: Path
    cells: int
    refreshed: tuple[int, ...]
    written: bool

    def __str__(self) -> str:
        if not self.written:
            return f"{self.path.name}: {self.cells} cells ran, nothing new"
        which = ", ".join(map(str, self.refreshed)) or "none"
        return f"{self.path.name}: {self.cells} cells ran, output refreshed of cells: {which}"


def render(path: Path, report: Report | None = None, output: Path | None = None) -> Rendered:
    """Run a notebook in a fresh kernel, in its own folder, and store its outputs.

    Shell: papermill NOTEBOOK NOTEBOOK

    Args:
        path: the notebook.
        report: gets a line as each cell starts; the default writes it to standard error.
        output: a directory for the executed notebook, as it printed; without it is stored in its place, where an output that
            says the same as the one that is there keeps it.

    Raises:
        LabError: the notebook is not there, or one of its cells failed; the file stays as it was.
    """
    import nbformat

    path = path.resolve()
    if not path.is_file():
        raise LabError(f"there is no notebook {path}")
    old = nbformat.read(path, as_version=4)
    new = _executed(path, report or _to_stderr)
    _strip(new)
    refreshed = _keep_equal_outputs(old, new) if output is None else tuple(range(1, len(_code(new)) + 1))
    new.metadata["labkit"] = {**new.metadata.get("labkit", {}), "source_sha256": source_sha256(new)}
    return Rendered(path, len(_code(new)), refreshed, _replace(path if output is None else output / path.name, new))


def source_sha256(notebook: NotebookNode) -> str:
    """Return the hash of all cell sources: stored beside the outputs, it tells whether they belong to these sources."""
    digest = hashlib.sha256()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        digest.update(f"{cell['cell_type']}\0{source}\0".encode())
    return digest.hexdigest()


@contextmanager
def own_progress() -> Iterator[dict[str, str]]:
    """Give a run of the instructor a progress of its own, away from the student's: outputs must not depend on it.

    Returns:
        The environment for it, also set in this process inside the `with` block.
    """
    before = os.environ.get("LABKIT_PROGRESS")
    with tempfile.TemporaryDirectory(prefix="labkit-progress-") as directory:
        os.environ["LABKIT_PROGRESS"] = directory
        try:
            yield dict(os.environ)
        finally:
            del os.environ["LABKIT_PROGRESS"]
            if before is not None:
                os.environ["LABKIT_PROGRESS"] = before


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _executed(path: Path, report: Report) -> NotebookNode:
    from papermill.exceptions import PapermillExecutionError

    try:
        with own_progress():
            return _run_by_papermill(path, report)
    except PapermillExecutionError as error:
        clean_up()
        where = f"cell {error.exec_count} (position {error.cell_index + 1})"
        raise LabError(f"{path.name}: {where} failed: {error.ename}: {error.evalue}", remedy="the file is as it was") from error


def clean_up() -> None:
    """Remove what a notebook that ended early has left on the machine."""
    import labkit.course.lab  # noqa: F401 - it loads every module that can undo something

    ledger.undo()


def _run_by_papermill(path: Path, report: Report) -> NotebookNode:
    import papermill
    from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

    class Reporting(NBClientEngine):  # type: ignore[misc]
        """papermill's own engine, with a line for each cell."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: object) -> None:
            code = _code(nb_man.nb)
            begin = nb_man.cell_start

            def start(cell: NotebookNode, *rest: object, **more: object) -> None:
                for number, one in enumerate(code, start=1):
                    if one is cell:
                        report(f"{path.name} [{number}/{len(code)}] {_first_line(cell.source)}")
                begin(cell, *rest, **more)

            nb_man.cell_start = start
            super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("labkit", Reporting)
    return papermill.execute_notebook(
        str(path),
        None,
        engine_name="labkit",
        kernel_name="python3",
        cwd=str(path.parent),
        progress_bar=False,
        request_save_on_cell_execute=False,
        autosave_cell_every=0,
    )


def _first_line(source: str) -> str:
    return (source.strip().splitlines() or [""])[0][:70]


def _strip(notebook: NotebookNode) -> None:
    """Remove what tells of the run and not of the lab: time stamps, widget state, papermill's marks, versions."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        for key in ("papermill", "execution", "scrolled", "collapsed"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = _joined_streams(cell.outputs)


def _joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join the pieces of each stream where the first one stands, as nbval does before it compares."""
    first: dict[str, NotebookNode] = {}
    joined = []
    for output in outputs:
        if output.output_type == "stream" and output.name in first:
            first[output.name].text += output.text
            continue
        if output.output_type == "stream":
            first[output.name] = output
        joined.append(output)
    return joined


def _keep_equal_outputs(old: NotebookNode, new: NotebookNode) -> tuple[int, ...]:
    """Put the old outputs back where they say the same; return the numbers of the cells where they do not."""
    known = {cell.get("id"): cell for cell in _code(old)}
    refreshed = []
    for number, cell in enumerate(_code(new), start=1):
        before = known.get(cell.get("id"))
        if before is not None and _say_the_same(before, cell):
            cell["outputs"] = before["outputs"]
            for output in cell["outputs"]:
                if output["output_type"] == "execute_result":
                    output["execution_count"] = cell["execution_count"]
        else:
            refreshed.append(number)
    return tuple(refreshed)


def _say_the_same(before: NotebookNode, after: NotebookNode) -> bool:
    if before["source"] != after["source"] or before["execution_count"] is None:
        return False
    kinds = [[output["output_type"] for output in cell["outputs"]] for cell in (before, after)]
    if kinds[0] != kinds[1]:
        return False
    return canonical.canonical_outputs(before["outputs"]) == canonical.canonical_outputs(after["outputs"])


def _replace(path: Path, notebook: NotebookNode) -> bool:
    """Write the notebook beside the old file and put it in its place at once; leave an equal file alone."""
    import nbformat

    text = nbformat.writes(notebook, version=4).rstrip("\n") + "\n"
    there = path.exists()
    if there and path.read_text() == text:
        return False
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), path.stat().st_mode & 0o777 if there else 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True
