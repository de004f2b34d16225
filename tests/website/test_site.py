"""The site: whole, by itself, and readable by everybody."""

import json
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser

from labkit.course import course_map
from website import audit, pages

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make site` does, in a place of the test's own."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "website", place], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return place


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with audit.chromium() as one:
        yield one


class Read(HTMLParser):
    """The links, anchors, pictures and loaded files of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.pictures: list[dict[str, str | None]] = []
        self.loaded: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        self.anchors |= {has[name] for name in ("id", "name") if has.get(name)}
        if tag == "a" and has.get("href"):
            self.links.append(has["href"])
        if tag == "img":
            self.pictures.append(has)
        if tag == "link" and has.get("rel") not in ("canonical",):
            self.loaded.append(has["href"])
        if tag in ("script", "img", "iframe", "source") and has.get("src"):
            self.loaded.append(has["src"])


@pytest.fixture(scope="module")
def read(site: Path) -> dict[Path, Read]:
    return {path: Read(path) for path in audit.pages(site)}


def page_of(source: Path) -> Path:
    return source.relative_to(ROOT).with_suffix(".html")


def test_every_notebook_and_every_guide_has_a_page(site: Path) -> None:
    guides = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "notebooks").rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    sources = [course_map.HOME, *(lab.notebook() for lab in course_map.written()), *guides]
    assert [source for source in sources if not (site / page_of(source)).is_file()] == []


def test_every_link_inside_leads_to_a_page_that_has_its_anchor(site: Path, read: dict[Path, Read]) -> None:
    broken = []
    for path, page in read.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = read[target].anchors if target in read else {unquote(parts.fragment)}
            if not target.is_file() or unquote(parts.fragment) not in anchors:
                broken.append(f"{path.relative_to(site)} -> {link}")
    assert broken == []


def test_no_page_loads_anything_from_another_place(read: dict[Path, Read]) -> None:
    loaded = {url for page in read.values() for url in page.loaded}
    assert [url for url in loaded if urlsplit(url).scheme not in ("", "data") or urlsplit(url).netloc] == []


def test_each_picture_has_a_text(read: dict[Path, Read]) -> None:
    bare = [(str(path), one["src"]) for path, page in read.items() for one in page.pictures if not (one.get("alt") or "").strip()]
    assert bare == []
    assert sum(len(page.pictures) for page in read.values()) >= len(course_map.written())


def outputs(notebook: Path) -> Iterator[str]:
    for cell in json.loads(notebook.read_text())["cells"]:
        for output in cell.get("outputs", ()):
            yield "".join(output.get("data", {}).get("text/html", ""))


def test_the_stored_outputs_are_on_the_pages_with_all_their_pictures(site: Path, read: dict[Path, Read]) -> None:
    for lab in course_map.written():
        stored = sum(html.count("<img ") for html in outputs(lab.notebook()))
        shown = sum((one["src"] or "").startswith("data:") for one in read[site / page_of(lab.notebook())].pictures)
        assert shown == stored, lab.id


def test_the_home_page_leads_to_the_page_of_each_lab(site: Path, read: dict[Path, Read]) -> None:
    links = read[site / page_of(course_map.HOME)].links
    assert [lab.id for lab in course_map.written() if lab.file.replace(".ipynb", ".html") not in links] == []


def test_axe_core_finds_nothing_serious_in_both_themes_and_nothing_is_asked_of_others(site: Path, browser: Browser) -> None:
    """A page of each kind; `make site-check` looks at every one."""
    shown = [site / "index.html", *(site / page_of(path) for path in pages.notebooks()[:2])]
    found = list(audit.audit(browser, shown))
    assert [(str(path), theme, str(one)) for path, theme, told, _ in found for one in told if one.serious] == []
    assert [asked for *_, asked in found if asked] == []


@pytest.mark.parametrize(
    ("html", "theme", "rule"),
    [
        ("<img src='dot.svg'>", "light", "image-alt"),
        ("<p style='color: #aaa; background: #fff'>hardly to be read</p>", "light", "color-contrast"),
        ("<style>@media (prefers-color-scheme: dark) { p { color: #333; background: #000 } }</style><p>dark</p>", "dark", "color-contrast"),
    ],
)
def test_what_cannot_be_read_is_noticed(tmp_path: Path, browser: Browser, html: str, theme: str, rule: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><html lang='en'><title>A page</title><main><h1>A page</h1>{html}</main></html>")
    found = {shown: told for _, shown, told, _ in audit.audit(browser, [page])}
    assert [one.rule for one in found[theme] if one.serious] == [rule]


def test_what_is_asked_of_another_place_is_noticed(tmp_path: Path, browser: Browser) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><html lang='en'><title>A page</title><link rel='stylesheet' href='http://127.0.0.1:9/font.css'></html>")
    assert [set(asked) for *_, asked in audit.audit(browser, [page], ["light"])] == [{"http://127.0.0.1:9/font.css"}]
