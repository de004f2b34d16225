"""The site: every stored notebook and every guide as pages that need no server and no network. `python -m website` builds it."""
