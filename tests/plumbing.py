"""What the tests of this room look at: namespaces, rules and files, read with the tools of the field."""

import subprocess


def shell(line: str, *, check: bool = True) -> str:
    """Return what a line writes to standard output."""
    return subprocess.run(line, shell=True, capture_output=True, text=True, check=check).stdout


def inside(netns: str, line: str, *, check: bool = True) -> str:
    """Return what a line writes in a named network namespace."""
    return shell(f"ip netns exec {netns} sh -c '{line}'", check=check)
