"""Sphinx's settings for the site: stored outputs as they are, no execution, nothing from another host."""

project = "Container lab"
author = "the authors of the container lab"
html_title = "Container lab"
language = "en"
root_doc = "index"

extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # else each page loads scripts from other hosts
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", None),
    ("html", "text/html", 1),
    ("html", "text/plain", 2),
]
myst_enable_extensions: list[str] = []  # a `$` is a shell's
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure", "myst.header"]  # a cell of bash is no Python; a card's heading may stand alone

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
