"""Build the site: `python -m website [DIRECTORY]`; build/site without one."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import build_main

from website import pages, reach

PLACE = pages.ROOT / "build" / "site"


def main(words: list[str]) -> int:
    """Build it into a directory, and say where it is; a warning of Sphinx's is an error."""
    place = Path(words[0]) if words else PLACE
    shutil.rmtree(place, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="labkit-site-") as directory:
        source, kept = Path(directory, "source"), Path(directory, "doctrees")
        pages.lay_out(source)
        options = ["-q", "-j", "auto", "-W", "--keep-going", "-b", "html", "-c", str(Path(__file__).parent), "-d", str(kept)]
        failed = build_main([*options, str(source), str(place)])
    if not failed:
        shutil.rmtree(place / "_sources", ignore_errors=True)
        reach.mend(place)
        print(f"the site: {place.resolve() / 'index.html'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
