"""The words of the project: those of the field, and none about how it was made."""

import re
import subprocess
from pathlib import Path

import click

from labkit.cli import cli

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = ("utils?", "helpers?", "common", "manager", "misc")
"""Names that say nothing about what is in a file."""

MADE_WITH = ("/work" + "/", "/tmp/" + "brief", "shared" + "/design", "the " + "brief", "this " + "session", "L" + "LM", "A" + "I-generated")
"""Traces of a workshop, which a reader of the code cannot follow."""

LISTS = {Path(__file__).resolve(), ROOT / "tests/notebooks/test_shape.py"}
"""Files that list such words to keep them out."""


def tracked(*patterns: str) -> list[Path]:
    argv = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--", *patterns]  # the checkout may be another user's
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_has_a_name_that_says_nothing() -> None:
    files = tracked("*.py", "*.sh")
    assert [p.name for p in files if re.fullmatch("|".join(NOT_OURS), p.stem)] == []


def test_no_file_tells_how_the_project_was_made() -> None:
    found = []
    for path in tracked("*.py", "*.sh", "*.md", "*.ipynb", "*.toml", "*.yml", "Makefile", ".ci/run"):
        if path in LISTS:
            continue
        text = path.read_text()
        found += [f"{path.relative_to(ROOT)}: {word}" for word in MADE_WITH if word in text]
    assert found == []


def test_the_references_to_manual_pages_are_well_formed() -> None:
    """`See:` names name(section) pages, specification sections or kernel documents, separated by commas."""
    page = re.compile(r"^[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)?\([1-9]\)$")
    wrong = []
    for path in tracked("labkit/*.py"):
        for reference in re.findall(r"^\s*See: (.*)$", path.read_text(), re.MULTILINE):
            for one in re.split(r",\s*(?![^()]*\))", reference.rstrip(".")):
                looks_like_a_page = re.match(r"^[\w.+-]+\(.*\)$", one.strip())
                if looks_like_a_page and not page.match(one.strip()):
                    wrong.append(f"{path.relative_to(ROOT)}: {one.strip()}")
    assert wrong == []


def test_the_documents_link_to_files_that_are_there() -> None:
    broken = []
    for path in tracked("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)} -> {target}")
    assert broken == []


def test_the_documents_name_only_commands_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(cli.list_commands(click.Context(cli)))
    for path in tracked("*.md"):
        code = "\n".join(re.findall(r"`[^`\n]+`|```.*?```", path.read_text(), re.DOTALL))
        assert set(re.findall(r"\bmake ([a-z]+)", code)) <= targets, path
        assert set(re.findall(r"\blabkit ([a-z]+)\b", code)) <= commands, path
