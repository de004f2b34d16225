"""The linters are tests: a push cannot forget them."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_make_lint_has_nothing_to_say() -> None:
    done = subprocess.run(["make", "--silent", "lint"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_importing_labkit_costs_little_more_than_python_itself() -> None:
    """Imports of labkit alone load none of its rooms: they come when they are used."""
    code = "import sys; before = set(sys.modules); import labkit; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([ROOT / ".venv/bin/python", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {"asyncio", "click", "dataclasses", "inspect", "json", "pathlib", "psutil", "pyroute2", "rich"}
    assert [name for name in loaded if name.startswith("labkit.")] == []
