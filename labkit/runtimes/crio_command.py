"""`labkit crio`: a crio.conf(5) for this machine, and the judgement on one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from labkit.errors import LabError


@click.group()
def crio() -> None:
    """Write a crio.conf for this machine, or judge one."""


@crio.command()
@click.argument("file", type=click.Path(path_type=Path))
def write(file: Path) -> None:
    """Write FILE for a CRI-O whose state lies beside it.

    The mounts.conf that it names is written, too; what is there is replaced.
    """
    from labkit.runtimes.crio import configuration

    place = file.absolute()
    try:
        place.write_text(configuration(place.parent))
    except OSError as error:
        raise LabError(f"{error.filename} cannot be written: {error.strerror}") from error


@crio.command()
@click.argument("file", type=click.Path(path_type=Path))
def judge(file: Path) -> None:
    """Say what CRI-O could not take in FILE.

    A line for each such thing; the exit status is 1 then.
    """
    from labkit.runtimes.crio_conf import problems

    try:
        text = file.read_text()
    except OSError as error:
        raise LabError(f"{file}: {error.strerror}") from error
    found = problems(text, file.name)
    for problem in found:
        click.echo(f"{problem}; remedy: {problem.remedy}" if problem.remedy else str(problem))
    sys.exit(1 if found else 0)
