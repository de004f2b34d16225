"""What the theme leaves out for who has no mouse, or no eyes for the page: put into each page once it is built."""

from __future__ import annotations

import re
from pathlib import Path

MENDED = (
    (r"<pre>", '<pre tabindex="0">'),  # a long line is scrolled by keys
    (r'(<p class="caption" role="heading")>', r'\1 aria-level="2">'),
    (r'(<aside class="sidebar-drawer")>', r'\1 aria-label="Pages">'),
    (r'(<aside class="toc-drawer[^"]*")>', r'\1 aria-label="On this page">'),
    (r'<th class="head"></th>', '<td class="head"></td>'),  # nothing heads that column
)
"""(what the theme writes, what stands there instead)."""


def mend(place: Path) -> None:
    """Mend each page below a directory."""
    for page in place.rglob("*.html"):
        text = page.read_text()
        for pattern, replacement in MENDED:
            text = re.sub(pattern, replacement, text)
        page.write_text(text)
