"""axe-core in a real Chromium: what a page has that somebody cannot read or reach. `python -m website.audit` looks at every page."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from website.__main__ import PLACE

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
SERIOUS = ("serious", "critical")
THEMES = ("light", "dark")
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")

CONTRAST = ("color-contrast", "link-in-text-block")
"""The rules whose answer depends on the theme."""

_RUN = """async ([ours, rules]) => {
    const only = rules.length ? {runOnly: {type: 'rule', values: rules}} : {};
    const told = await axe.run(document, {resultTypes: ['violations'], preload: false, ...only});
    return told.violations.flatMap(found => found.nodes.map(node => {
        const place = document.querySelector(String(node.target[0]));
        return [found.id, found.impact || node.impact, String(node.target), node.html, !ours || !!(place && place.closest(ours))];
    }));
}"""
"""`resultTypes` keeps axe from describing all that is well, which would take most of its time."""


@dataclass(frozen=True)
class Finding:
    """One element at which a rule of axe-core does not hold.

    Attributes:
        rule: the rule's id, such as "color-contrast".
        impact: minor, moderate, serious or critical.
        target: a CSS selector of the element.
        html: how it begins.
        ours: whether it is in what we write, and not in a frame that somebody else draws around it.
    """

    rule: str
    impact: str
    target: str
    html: str
    ours: bool = True

    @property
    def serious(self) -> bool:
        """Whether somebody is kept out by it."""
        return self.impact in SERIOUS

    def __str__(self) -> str:
        return f"{self.impact} {self.rule}: {self.target}  {self.html[:120]}"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium with a profile of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(ARGUMENTS))
        yield browser
        browser.close()


def look(page: Page, ours: str = "", rules: Iterable[str] = ()) -> list[Finding]:
    """Return what axe-core finds in the page as it is shown now.

    Args:
        page: an open page.
        ours: a CSS selector of what we write in it; empty where all of it is ours.
        rules: ids of the rules to try; without them all.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    return [Finding(*found) for found in page.evaluate(_RUN, [ours, list(rules)])]


def audit(browser: Browser, paths: Iterable[Path], themes: Iterable[str] = THEMES) -> Iterator[tuple[Path, str, list[Finding], list[str]]]:
    """Look at each page in each theme; give page, theme, findings, and the addresses that it asked of another place."""
    themes = tuple(themes)
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in paths:
        asked.clear()
        page.goto(path.resolve().as_uri())
        for theme in themes:
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")  # type: ignore[arg-type]
            found = look(page, rules=() if theme == themes[0] else CONTRAST)
            yield path, theme, found, [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    page.close()


def pages(place: Path = PLACE) -> list[Path]:
    """Return every page of a built site."""
    return sorted(place.rglob("*.html"))


def main() -> int:
    """Look at every page in both themes, print a line for each and what was found; 1 where something is serious or asked of others."""
    wrong = 0
    with chromium() as browser:
        for path, theme, found, asked in audit(browser, pages()):
            serious = sum(one.serious for one in found)
            wrong += serious + len(asked)
            print(f"{path.relative_to(PLACE)} {theme}: {serious} serious, {len(found) - serious} others", flush=True)
            for line in [*sorted(set(map(str, found))), *(f"asked of another place: {url}" for url in asked)]:
                print(f"    {line}")
    return int(bool(wrong))


if __name__ == "__main__":
    if not pages():
        sys.exit("make site builds the site first")
    sys.exit(main())
