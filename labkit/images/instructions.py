"""The instruction of a Dockerfile behind each entry of an image's history, written alike whichever builder wrote the entry.

The classic builder writes the shell line that it ran, and for all else that line as a comment after `#(nop)`; BuildKit writes the
instruction and a remark. See: image-spec config.md, history
"""

from __future__ import annotations

import re

from labkit.images.oci import History

NOTHING = "#(nop)"
_SHELLS = r"(?:/bin/)?(?:sh|ash|bash|dash) (?:-\w+ )*-\w*c"
_CLASSIC = re.compile(rf"^{_SHELLS} {re.escape(NOTHING)} *")
_REMARK = re.compile(r"\s*# buildkit$")
_ARGUMENTS = re.compile(r"^\|(\d+) ")
_DEFAULT_SHELL = re.compile(r"^/bin/sh -c ")
_COPIED = re.compile(r"^(COPY|ADD) (?:file|dir|multi):[0-9a-f]+ in ")
_PORT = re.compile(r"\b(\d+)(?:/(\w+))?\b")
_TEST = re.compile(r"^HEALTHCHECK &\{(\[[^\]]*\]).*$")


def instruction(entry: History) -> str:
    """Return the instruction that an entry of the history comes from; what no builder wrote stays as it is.

    What was copied stands only in the history of BuildKit, so it is left out: `COPY … /code/`.
    """
    text = entry.created_by.strip()
    if _CLASSIC.match(text):
        return _settled(" ".join(_CLASSIC.sub("", text).split()))
    if _REMARK.search(text) or entry.comment.startswith("buildkit."):
        text = _REMARK.sub("", text)
        return _run(text.removeprefix("RUN ")) if text.startswith("RUN ") else _settled(text)
    if _DEFAULT_SHELL.match(text) or _ARGUMENTS.match(text) or re.match(rf"^{_SHELLS} ", text):
        return _run(text)
    return text or _remark(entry.comment)


def _remark(comment: str) -> str:
    """Name what no instruction made: docker says of an import where it read the archive."""
    return "(an imported archive)" if comment.lower().startswith("imported from") else f"({comment or 'nothing is said'})"


def _run(text: str) -> str:
    """Write a RUN with the values of ARG that it got behind it."""
    given: list[str] = []
    if counted := _ARGUMENTS.match(text):
        *given, text = text[counted.end() :].split(" ", int(counted[1]))
    line = " ".join(_DEFAULT_SHELL.sub("", text).split())
    return f"RUN {line}" + (f"  # with {' '.join(given)}" if given else "")


def _settled(text: str) -> str:
    """Write alike what the builders write each in its way: ports, tests, what was copied."""
    word, _, rest = text.partition(" ")
    if word == "EXPOSE":
        ports = sorted({f"{number}/{protocol or 'tcp'}" for number, protocol in _PORT.findall(re.sub(r":\{\}", "", rest))})
        return f"EXPOSE {' '.join(ports)}"
    if word in ("COPY", "ADD"):
        return f"{word} … {_COPIED.sub('', text).split()[-1]}"
    return _TEST.sub(r"HEALTHCHECK \1", text)
