"""The command `rkt`: its name and its lines are those of rkt 1.30, what runs is the pod executor of this course.

Where `LABKIT_RKT` names a real rkt, that one is run in its place.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn, cast

import click

from labkit import ledger
from labkit.appc.pod_manifest import VERSION
from labkit.appc.settings import FAILED, Settings, global_options
from labkit.appc.types import AC_VERSION

REAL = "LABKIT_RKT"
"""The variable that names a real rkt."""
LAB = "LABKIT_LAB"
"""The variable that names the lab in which this is typed: what the pods get of the kernel is that lab's."""

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


_PLACES = {
    "command_pod": {
        "run": "run",
        "prepare": "prepare_command",
        "run-prepared": "run_prepared",
        "list": "list_pods",
        "status": "status",
        "cat-manifest": "cat_manifest",
        "rm": "rm",
        "stop": "stop",
        "enter": "enter",
        "gc": "gc",
    },
    "command_image": {"image": "image"},
    "command_fetch": {"fetch": "fetch_command", "trust": "trust", "docker2aci": "docker2aci", "aci2oci": "aci2oci"},
}
"""Module to its commands, each with its name there."""


class _Doors(click.Group):
    """A group that loads a command when it is called: a pod starts the sooner, the less is read before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *(name for commands in _PLACES.values() for name in commands)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for module, commands in _PLACES.items():
            if cmd_name in commands:
                return cast(click.Command, getattr(import_module(f"labkit.appc.{module}"), commands[cmd_name]))
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Doors, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@global_options
def rkt(settings: Settings) -> None:
    """Fetch images of App Containers, and run them in pods."""
    context = click.get_current_context()
    context.obj = settings
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        context.exit(2)


@rkt.command()
@global_options
def version(_settings: Settings) -> None:
    """Print what this is, and which versions it follows."""
    click.echo("labkit.appc: the pod executor of this course, with the command line of rkt")
    click.echo(f"rkt Version: {VERSION}\nappc Version: {AC_VERSION}\nGo Version: none, Python {platform.python_version()}")
    click.echo(f"Go OS/Arch: linux/{_MACHINES.get(platform.machine(), platform.machine())}\nFeatures: -TPM -SDJOURNAL")


@rkt.command("help")
def help_() -> None:
    """Print this."""
    context = click.get_current_context()
    click.echo((context.parent or context).get_help())


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; every end is one of rkt's: 254 and one line for what cannot be done."""
    words = list(sys.argv[1:] if argv is None else argv)
    if real := os.environ.get(REAL):
        _become(real, words)
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


def _become(real: str, words: Sequence[str]) -> NoReturn:
    """Turn into a real rkt, with the lab's directories."""
    told = (("dir", "RKT_DIR"), ("local-config", "RKT_LOCAL_CONFIG"))
    places = [f"--{option}={os.environ[name]}" for option, name in told if os.environ.get(name)]
    try:
        os.execve(real, [real, *places, *words], {name: value for name, value in os.environ.items() if name != REAL})
    except OSError as error:
        click.echo(f"rkt: {REAL}={real}: {error.strerror}", err=True)
        sys.exit(FAILED)


def _rewritten(error: click.ClickException) -> str:
    """Return what is wrong with a line in the words that rkt has for it."""
    if isinstance(error, click.NoSuchOption):
        return f"unknown flag: {error.option_name}"
    text = error.format_message().rstrip(".")
    return text.replace("No such command '", 'unknown command "').replace("'", '"') if text.startswith("No such command") else text
