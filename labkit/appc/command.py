"""The command `rkt`: its name and its lines are those of rkt 1.30, what runs is the pod executor of this course.

Where `LABKIT_RKT` names a real rkt, that one is run in its place.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence

import click

from labkit import ledger
from labkit.appc.command_fetch import aci2oci, docker2aci, fetch_command, trust
from labkit.appc.command_image import image
from labkit.appc.command_pod import COMMANDS
from labkit.appc.prepare import VERSION
from labkit.appc.settings import FAILED, Settings, global_options
from labkit.appc.types import AC_VERSION

REAL = "LABKIT_RKT"
"""The variable that names a real rkt."""
LAB = "LABKIT_LAB"
"""The variable that names the lab in which this is typed: what the pods get of the kernel is that lab's."""

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@global_options
def rkt(settings: Settings) -> None:
    """Fetch images of App Containers, and run them in pods."""
    context = click.get_current_context()
    context.obj = settings
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        context.exit(2)


@click.command()
@global_options
def version(_settings: Settings) -> None:
    """Print what this is, and which versions it follows."""
    click.echo("labkit.appc: the pod executor of this course, with the command line of rkt")
    click.echo(f"rkt Version: {VERSION}\nappc Version: {AC_VERSION}\nGo Version: none, Python {platform.python_version()}")
    click.echo(f"Go OS/Arch: linux/{_MACHINES.get(platform.machine(), platform.machine())}\nFeatures: -TPM -SDJOURNAL")


@click.command("help")
def help_() -> None:
    """Print this."""
    context = click.get_current_context()
    click.echo((context.parent or context).get_help())


for _command in (*COMMANDS, image, fetch_command, trust, docker2aci, aci2oci, version, help_):
    rkt.add_command(_command)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; every end is one of rkt's: 254 and one line for what cannot be done."""
    words = list(sys.argv[1:] if argv is None else argv)
    real = os.environ.get(REAL)
    if real:
        told = (("dir", "RKT_DIR"), ("local-config", "RKT_LOCAL_CONFIG"))
        places = [f"--{option}={os.environ[name]}" for option, name in told if os.environ.get(name)]
        os.execv(real, [real, *places, *words])
    if lab := os.environ.get(LAB):
        ledger.own(lab)
    try:
        ended = rkt(words, prog_name="rkt", standalone_mode=False)
    except click.ClickException as error:
        name = error.ctx.info_name if isinstance(error, click.UsageError) and error.ctx else "rkt"
        click.echo(f"{name}: {_rewritten(error)}", err=True)
        sys.exit(FAILED)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(ended if isinstance(ended, int) else 0)


def _rewritten(error: click.ClickException) -> str:
    """Return what is wrong with a line in the words that rkt has for it."""
    if isinstance(error, click.NoSuchOption):
        return f"unknown flag: {error.option_name}"
    text = error.format_message().rstrip(".")
    return text.replace("No such command '", 'unknown command "').replace("'", '"') if text.startswith("No such command") else text
