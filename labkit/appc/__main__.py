"""`python -m labkit.appc` is the command `rkt`."""

from labkit.appc.command import main

main()
