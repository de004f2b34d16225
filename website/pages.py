"""What the site is made of: the documents and notebooks of the checkout, laid out anew with an index of the whole course."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from labkit.course import course_map

ROOT = Path(__file__).resolve().parents[1]
GUIDES = ("student", "instructor", "author", "vm", "services", "images", "runtimes", "compare", "xray", "appc", "benchmarks")
"""Guides in the order of the index; those that are not named here follow."""

_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
_NOTEBOOK_LINK = re.compile(r'(<a\b[^>]*\bhref="(?![a-z]+:)[^"#]*)\.ipynb(?=["#])')


def lay_out(place: Path) -> None:
    """Write the sources of the site below a directory, which is emptied first.

    Args:
        place: a directory of ours.
    """
    shutil.rmtree(place, ignore_errors=True)
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"):
        _write(place / name, (ROOT / name).read_text())
    shutil.copytree(ROOT / "docs", place / "docs")
    shutil.copytree(ROOT / "notebooks", place / "notebooks", ignore=shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints"))
    for page in place.rglob("*.md"):
        page.write_text(_with_pages_for_directories(page.read_text(), page))
    for notebook in notebooks():
        _write(place / notebook.relative_to(ROOT), _with_links_to_pages(json.loads(notebook.read_text())))
    _write(place / "docs/decisions/index.md", "# Decisions\n\nWhy things are as they are.\n\n" + _toctree("", _decisions(place)))
    _write(place / "index.md", (ROOT / "README.md").read_text() + "\n" + "".join(_contents(place)))


def notebooks() -> list[Path]:
    """Return the home page and each lab whose notebook is there, in the order of the course."""
    there = [path for lab in course_map.LABS if (path := lab.notebook())]
    return [course_map.HOME, *there]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _contents(place: Path) -> list[str]:
    """Return the tables of contents, one for each group of pages in the sidebar."""
    guides = [page.stem for page in (place / "docs").glob("*.md")]
    first = [f"docs/{name}" for name in GUIDES if name in guides]
    rest = sorted(f"docs/{name}" for name in guides if name not in (*GUIDES, "architecture"))
    groups = {"The course": ["notebooks/start"]}
    for number, labs in course_map.chapters().items():
        written = [f"notebooks/{lab.file}".removesuffix(".ipynb") for lab in labs if lab.notebook()]
        folders = dict.fromkeys(lab.chapter for lab in labs)
        beside = [f"notebooks/{name}/{page.stem}" for name in folders for page in sorted((place / "notebooks" / name).glob("*.md"))]
        groups[f"{number} {course_map.CHAPTERS[number]}"] = [*written, *beside]
    groups |= {"Guides": [*first, *rest], "The project": ["docs/architecture", "docs/decisions/index", "CONTRIBUTING", "CHANGELOG"]}
    return [_toctree(caption, pages, "hidden") for caption, pages in groups.items() if pages]


def _toctree(caption: str, pages: list[str], *options: str) -> str:
    said = [f":caption: {caption}"] if caption else []
    return "\n".join(["```{toctree}", *said, ":maxdepth: 1", *(f":{option}:" for option in options), "", *pages, "```", ""])


def _decisions(place: Path) -> list[str]:
    return sorted((page.stem for page in (place / "docs/decisions").glob("[0-9]*.md")), key=lambda name: int(name.split("-")[0]))


def _with_pages_for_directories(text: str, page: Path) -> str:
    """Let a link to a directory lead to its index."""

    def written(link: re.Match[str]) -> str:
        return f"]({link[1].rstrip('/')}/index.md)" if (page.parent / link[1]).is_dir() else link[0]

    return _LINK.sub(written, text)


def _with_links_to_pages(notebook: dict[str, Any]) -> str:
    """Let the links in stored outputs lead to the pages of the notebooks; those in prose are Sphinx's to resolve."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            written = output.get("data", {}).get("text/html")
            if written:
                output["data"]["text/html"] = _NOTEBOOK_LINK.sub(r"\1.html", "".join(written))
    return json.dumps(notebook)
