"""What every command of rkt takes, before or after its name: where things are, and what is not checked."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labkit.appc.options import GLOBAL, Takes, insecure_options
from labkit.errors import LabError

if TYPE_CHECKING:  # a command that needs neither is the quicker without
    from labkit.appc.keystore import Keystore
    from labkit.appc.store import Store

DIRECTORY, LOCAL, SYSTEM = Path("/var/lib/rkt"), Path("/etc/rkt"), Path("/usr/lib/rkt")
FAILED = 254
"""The exit status of a command of rkt that could not do what it was asked for."""


@dataclass(frozen=True)
class Settings:
    """The settings of one command.

    Attributes:
        directory: the state directory.
        local: the local configuration.
        system: the system's configuration.
        insecure: what is not checked.
    """

    directory: Path = DIRECTORY
    local: Path = LOCAL
    system: Path = SYSTEM
    insecure: frozenset[str] = frozenset()

    @classmethod
    def of_environment(cls) -> Settings:
        """Return what the variables RKT_DIR and RKT_LOCAL_CONFIG say: a lab sets them for the lines that are typed in it."""
        return cls(Path(os.environ.get("RKT_DIR") or DIRECTORY), Path(os.environ.get("RKT_LOCAL_CONFIG") or LOCAL))

    def changed(self, given: Mapping[str, Any]) -> Settings:
        """Return them with what the global options of a line say: the name of each to its text, or to all of its texts.

        Raises:
            LabError: a word of --insecure-options is none.
        """
        return Settings(
            Path(given.get("dir") or self.directory),
            Path(given.get("local-config") or self.local),
            Path(given.get("system-config") or self.system),
            self.insecure | insecure_options(given.get("insecure-options") or ()),
        )

    def store(self) -> Store:
        """Return the store of images."""
        from labkit.appc.store import Store

        return Store(self.directory)

    def keystore(self) -> Keystore:
        """Return the trusted keys."""
        from labkit.appc.keystore import Keystore

        return Keystore(self.local, self.system)


class ValuedFlags(click.Command):
    """A command whose flags may have their value behind them, as in `--pretty-print=false`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words, those with a value as click has them."""
        flags = {name: each for each in self.params if isinstance(each, click.Option) and each.is_flag for name in each.opts}
        return super().parse_args(ctx, [word for each in args for word in _valued(each, flags)])


def _valued(word: str, flags: dict[str, click.Option]) -> Iterator[str]:
    name, _, value = word.partition("=")
    if name not in flags or value not in ("true", "false"):
        yield word
    elif value == "true":
        yield name
    else:
        yield from flags[name].secondary_opts


def of_context(context: click.Context) -> Settings:
    """Return what stands before the name of a command, or else in the environment."""
    return context.obj if isinstance(context.obj, Settings) else Settings.of_environment()


def global_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command of click take the global options of rkt; its first argument is the Settings that they make.

    What stands before the name of the command, the group keeps as Settings in the context's `obj`.
    """
    options = [
        click.option(f"--{name}", is_flag=each.takes is Takes.FLAG, multiple=each.takes is Takes.LIST, help=each.help)
        for name, each in GLOBAL.items()
    ]

    @functools.wraps(command)
    @click.pass_context
    def with_settings(context: click.Context, /, **given: Any) -> Any:
        words = {name: given.pop(name.replace("-", "_")) for name in GLOBAL}
        with told(context):
            return command(of_context(context).changed(words), **given)

    return functools.reduce(lambda made, option: option(made), reversed(options), with_settings)


@contextmanager
def told(context: click.Context) -> Iterator[None]:
    """Print what went wrong as rkt does, `fetch: WHY`, and end with its exit status.

    Args:
        context: of the command.
    """
    try:
        yield
    except LabError as error:
        lines = _lines(context, error)
    except ExceptionGroup as group:
        lines = [line for error in group.exceptions if isinstance(error, LabError) for line in _lines(context, error)]
        if len(lines) < len(group.exceptions):
            raise
    except OSError as error:
        if not error.filename:
            raise
        lines = [f"{context.info_name}: open {error.filename}: {(error.strerror or '').lower()}"]
    else:
        return
    click.echo("\n".join(lines), err=True)
    raise SystemExit(FAILED)


def _lines(context: click.Context, error: LabError) -> list[str]:
    """Return what is told of an error; stage 1, a program of its own in rkt, speaks for itself."""
    speaker = "" if error.message.startswith("stage1: ") else f"{context.info_name}: "
    return [speaker + error.message, *(f"  {line}" for line in (error.cause, error.remedy) if line)]
