"""`python -m labkit.kernel.live SOCKET`: the collector."""

import sys
from pathlib import Path

from labkit.kernel.live.serving import main

sys.exit(main(Path(sys.argv[1])))
