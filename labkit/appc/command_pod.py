"""The commands of rkt that work on pods: arguments in, one call down, rkt's columns, words and exit statuses out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from labkit.appc import garbage, listing, stage1
from labkit.appc.networks import Networks
from labkit.appc.options import GLOBAL, PREPARE, RUN, RUNNING, Image, Line, Option, OptionError, Takes, described, parse
from labkit.appc.pod import Pod, PodError, State
from labkit.appc.pods import Pods
from labkit.appc.prepare import prepare, settings_of
from labkit.appc.settings import FAILED, Settings, ValuedFlags, global_options, of_context, told
from labkit.appc.types import ImageID, serialized
from labkit.errors import LabError

_TICK = 0.05
_formats = click.option("--format", "form", type=click.Choice(("json", "json-pretty")), help="Print JSON.")
_uuid_file = click.option("--uuid-file", type=click.Path(path_type=Path), help="Read the UUID from this file.")


class WordsCommand(click.Command):
    """A command whose words are read by `options`: images, each with its own options and arguments."""

    def __init__(self, name: str, options: dict[str, Option], run: Callable[[Settings, Line], int], metavar: str) -> None:
        super().__init__(name, callback=self._run, help=run.__doc__, options_metavar="[OPTIONS]")
        self._options, self._call, self._metavar = {**options, **GLOBAL}, run, metavar
        self._words: list[str] = []

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words as they are; `--help` before the first image, or alone, is answered."""
        if "--help" in args[:1] or "-h" in args[:1]:
            click.echo(self.get_help(ctx))
            ctx.exit()
        self._words = args
        return []

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        """Return what follows the command."""
        return ["[OPTIONS]", self._metavar]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as click calls it
        """Write the options of `options`."""
        with formatter.section("Options"):
            formatter.write_dl(described(self._options))

    def _run(self) -> None:
        context = click.get_current_context()
        with told(context):
            line = parse(self._words, self._options)
            words = {name: line.given.texts(name) if each.takes is Takes.LIST else line.given.text(name) for name, each in GLOBAL.items()}
            sys.exit(self._call(of_context(context).changed(words), line))


def _say(line: str) -> None:
    click.echo(line, err=True)


def _prepared(settings: Settings, line: Line) -> Pod:
    """Fetch, reify and write a pod; this process holds it."""
    from labkit.appc.fetch import NEVER, NEW, UPDATE, fetch  # with all that knows the web: not for `list`

    store, keystore, given = settings.store(), settings.keystore(), line.given
    policy = NEVER if given.flag("store-only") else UPDATE if given.flag("no-store") else given.text("pull-policy", NEW)
    if policy not in (NEVER, NEW, UPDATE):
        raise OptionError(f'invalid argument "{policy}" for --pull-policy: {NEVER}, {NEW} or {UPDATE}')
    say = str if given.flag("quiet") else _say

    def of(image: Image) -> ImageID:
        signature = Path(image.given.text("signature")) if "signature" in image.given else None
        return fetch(store, keystore, image.text, insecure=settings.insecure, policy=policy, signature=signature, say=say)

    return prepare(Pods(settings.directory), store, line, of)


def _run(settings: Settings, line: Line) -> int:
    """Run images in a new pod, each as an app of it.

    Options after an image are meant for it; what stands between -- and --- are its arguments.
    """
    networks = _networks(settings, line)  # first: what is wrong with a line is said before anything is made
    if "port" in line.given and (networks.host or networks.none):
        raise OptionError(f"--port flag does not work with '{networks.wanted[0][0]}' networking")
    return _started(_prepared(settings, line), line, networks)


def _prepare(settings: Settings, line: Line) -> int:
    """Prepare a pod of images without running it, and print its UUID."""
    pod = _prepared(settings, line)
    pod.move("prepared")
    click.echo(pod.uuid)
    return 0


def _run_prepared(settings: Settings, line: Line) -> int:
    """Run a pod that was prepared."""
    if len(line.images) != 1:
        raise OptionError("must provide the UUID of a prepared pod")
    networks, pod = _networks(settings, line), Pods(settings.directory).find(line.images[0].text)
    pod.lock()
    if pod.place != "prepared":
        raise PodError(f'pod "{pod.uuid}" is not prepared')
    return _started(pod, line, networks)


def _networks(settings: Settings, line: Line) -> Networks:
    return Networks.parse(line.given.texts("net"), settings.directory / garbage.NETWORKS, settings.local)


def _started(pod: Pod, line: Line, networks: Networks) -> int:
    """Run a pod that this process holds, to its end."""
    given = line.given
    pod.settings = settings_of(line)
    pod.move("run")
    if "uuid-file-save" in given:
        Path(given.text("uuid-file-save")).write_text(pod.uuid)
    return stage1.run(pod, interactive=given.flag("interactive"), net=networks, mds=given.flag("mds-register"))


run = WordsCommand("run", RUN, _run, "IMAGE [OPTIONS] [-- ARGUMENT... [---]]...")
prepare_command = WordsCommand("prepare", PREPARE, _prepare, "IMAGE [OPTIONS] [-- ARGUMENT... [---]]...")
run_prepared = WordsCommand("run-prepared", RUNNING, _run_prepared, "UUID")


@click.command("list", cls=ValuedFlags)
@click.option("--full", is_flag=True, help="Whole UUIDs, ids of images, times.")
@click.option("--no-legend", is_flag=True, help="Leave out the names of the columns.")
@_formats
@global_options
def list_pods(settings: Settings, *, full: bool, no_legend: bool, form: str | None) -> None:
    """List the pods."""
    found = listing.views(Pods(settings.directory).all())
    if form:
        click.echo(_json([pod.record() for pod in found], form))
    elif text := listing.listed(found, full=full, legend=not no_legend):
        click.echo(text)


@click.command(cls=ValuedFlags)
@click.argument("uuid", metavar="UUID")
@click.option("--wait", is_flag=True, help="Wait until the pod has exited.")
@click.option("--wait-ready", is_flag=True, help="Wait until each app has begun.")
@_formats
@global_options
def status(settings: Settings, uuid: str, *, wait: bool, wait_ready: bool, form: str | None) -> None:
    """Print the state of a pod, and what its apps ended with."""
    pod = _found(settings, uuid)
    while pod.state in (State.PREPARING, State.RUNNING) and (wait or (wait_ready and not pod.has_begun)):
        time.sleep(_TICK)
    view = listing.PodView.of(pod)
    click.echo(_json(view.record(), form) if form else listing.status(view))


@click.command("cat-manifest")
@click.argument("uuid", metavar="UUID")
@click.option("--pretty-print", type=bool, default=True, help="Indent it; true or false.")
@global_options
def cat_manifest(settings: Settings, uuid: str, *, pretty_print: bool) -> None:
    """Print the manifest of a pod."""
    record = _found(settings, uuid).manifest.record()
    click.echo(serialized(record, indent="\t" if pretty_print else None))


@click.command()
@click.argument("uuids", nargs=-1, metavar="UUID...")
@_uuid_file
@global_options
def rm(settings: Settings, uuids: tuple[str, ...], uuid_file: Path | None) -> None:
    """Remove pods that do not run, with all that they have left."""

    def one(pod: Pod) -> None:
        garbage.remove(pod)
        click.echo(f'"{pod.uuid}"')

    _each(settings, uuids, uuid_file, one, "failed to remove one or more pods")


@click.command(cls=ValuedFlags)
@click.argument("uuids", nargs=-1, metavar="UUID...")
@click.option("--force", is_flag=True, help="Kill it at once.")
@_uuid_file
@global_options
def stop(settings: Settings, uuids: tuple[str, ...], uuid_file: Path | None, *, force: bool) -> None:
    """Stop pods that run."""

    def one(pod: Pod) -> None:
        if pod.state in (State.EXITED, State.EXITED_GARBAGE, State.DELETING):
            _say(f'stop: pod "{pod.uuid}" is already stopped')
            return
        if pod.state is not State.RUNNING:
            raise PodError(f'pod "{pod.uuid}" is not running')
        stage1.stop(pod, force=force)
        click.echo(f'"{pod.uuid}"')

    _each(settings, uuids, uuid_file, one, "failed to stop one or more pods")


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--app", default="", help="The app to enter, where the pod has several.")
@click.argument("uuid", metavar="UUID")
@click.argument("command", nargs=-1, metavar="[COMMAND [ARGUMENT...]]")
@global_options
def enter(settings: Settings, app: str, uuid: str, command: tuple[str, ...]) -> None:
    """Run a command, or /bin/bash, in an app of a pod that runs."""
    from labkit.appc.enter import enter as entered

    sys.exit(entered(_found(settings, uuid), app, command))


@click.command(cls=ValuedFlags)
@click.option("--grace-period", default="30m0s", metavar="TIME", help="How long an exited pod stays once it was marked.")
@click.option("--expire-prepared", default="24h0m0s", metavar="TIME", help="How long a pod stays that was prepared and never run.")
@click.option("--mark-only", is_flag=True, help="Remove nothing.")
@global_options
def gc(settings: Settings, grace_period: str, expire_prepared: str, *, mark_only: bool) -> None:
    """Remove what pods have left: mark those that have exited, remove those that were marked long enough ago."""
    grace, expire = garbage.seconds(grace_period), garbage.seconds(expire_prepared)
    pods = Pods(settings.directory)
    garbage.collect(pods, lambda line: _say(f"gc: {line}"), click.echo, grace=grace, expire=expire, mark_only=mark_only)


def _found(settings: Settings, uuid: str) -> Pod:
    try:
        return Pods(settings.directory).find(uuid)
    except PodError as error:
        raise PodError(f"problem retrieving pod: {error.message}") from error


def _each(settings: Settings, uuids: tuple[str, ...], file: Path | None, do: Callable[[Pod], None], failed: str) -> None:
    """Do something with several pods; go on after one that resists, and fail in the end."""
    wanted = [*uuids, *([file.read_text().strip()] if file else [])]
    if not wanted:
        raise OptionError("must provide at least one UUID")
    name, errors = click.get_current_context().info_name, 0
    for uuid in wanted:
        try:
            do(Pods(settings.directory).find(uuid))
        except LabError as error:
            errors += 1
            _say(f"{name}: {error.message}")
    if errors:
        _say(f"{name}: {failed}")
        sys.exit(FAILED)


def _json(record: Any, form: str) -> str:
    return serialized(record, indent="\t" if form == "json-pretty" else None) if record else json.dumps(record)
