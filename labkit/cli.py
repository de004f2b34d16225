"""The command `labkit`: a thin door to the rooms below. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import difflib
import json
import os
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from labkit import __version__
from labkit.errors import CheckFailed, LabError

if TYPE_CHECKING:
    from labkit.course.course_map import CourseLab
    from labkit.course.lab import Lab

_GROUPS = {"cri": "labkit.runtimes.cri.command", "crio": "labkit.runtimes.crio_command", "images": "labkit.images.command",
           "top": "labkit.course.top"}  # fmt: skip
"""Each command, or group of commands, that a room below has, with its module."""


class _Doors(click.Group):
    """A group that says which command was meant, and loads the groups of the rooms when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _GROUPS:
            return cast(click.Command, getattr(import_module(_GROUPS[cmd_name]), cmd_name))
        command = super().get_command(ctx, cmd_name)
        if command is None:
            near = difflib.get_close_matches(cmd_name, self.list_commands(ctx), n=1)
            meant = f"did you mean {near[0]}?" if near else "`labkit --help` lists them"
            raise click.UsageError(f"there is no command {cmd_name!r}; {meant}")
        return command


@click.group(cls=_Doors, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.pass_context
def cli(context: click.Context) -> None:
    """Learn how containers work by changing a real Linux kernel."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
def labs() -> None:
    """Show the course: its labs, your progress, the doctor's word."""
    from labkit.course import home

    for view in (home.chapters, home.what_next, home.doctor):
        click.echo(f"{view()}\n")


@cli.command()
@click.argument("lab", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (docs/doctor.schema.json).")
def doctor(lab: str | None, *, as_json: bool) -> None:
    """Say what this machine can do for LAB; exit 1 if red."""
    from labkit.host.doctor import examine

    report = examine(_needs(lab) if lab else None, lab=lab or "")
    click.echo(report.json() if as_json else report.text())
    if report.colour == "red":
        sys.exit(1)


@cli.command()
@click.option("--port", default=8888, show_default=True, type=click.IntRange(1, 65535), help="The first port to try.")
@click.option("--notebooks", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Serve this copy of the notebooks.")
def start(port: int, notebooks: Path | None) -> None:
    """Start JupyterLab and print its URL; Ctrl-C stops it."""
    _as_root("start")
    from labkit.course import course_map
    from labkit.host import jupyter

    live = ("labkit", "top") if "top" in cli.list_commands(click.get_current_context()) else ()
    jupyter.serve(notebooks or course_map.NOTEBOOKS, click.echo, port=port, live=live)


@cli.command()
def url() -> None:
    """Print the URL of the JupyterLab that runs."""
    _as_root("url")
    from labkit.host import jupyter

    servers = jupyter.running()
    if not servers:
        raise LabError("no JupyterLab runs here", remedy="labkit start")
    for server in servers:
        click.echo(server.url)


@cli.command()
@click.argument("lab", required=False)
def clean(lab: str | None) -> None:
    """Remove what the labs made, or one LAB, even after a crash."""
    _as_root("clean")
    if lab:
        _find(lab)
    import labkit.course.lab  # noqa: F401 - it loads every module that can undo something
    from labkit import ledger, runtimes

    runtimes.load()

    undone = ledger.undo(lab)
    for entry in undone:
        click.echo(f"removed {entry.kind} {' '.join(entry.key.values())}")
    click.echo(f"{len(undone)} things removed" if undone else "nothing of the labs is left")


@cli.command()
@click.argument("names", metavar="[NAMES]", nargs=-1)
@click.option("--apart", is_flag=True, help="Take ports and sockets of its own, beside another LABKIT_STATE.")
@click.option("--check", "only_check", is_flag=True, help="Only say what would be done; nothing if nothing.")
@click.option("--at-boot", is_flag=True, help="Start them with the next boot, by systemd, and not now.")
def up(names: tuple[str, ...], *, apart: bool, only_check: bool, at_boot: bool) -> None:
    """Start services, or all; wait until they answer."""
    _as_root("up")
    from labkit.host import services

    if only_check:
        click.echo(services.pending(names), nl=False)
        return
    if at_boot:
        services.enable()
        return
    if apart:
        services.set_apart()
    services.up(names, click.echo)


@cli.command()
@click.argument("names", metavar="[NAMES]", nargs=-1)
@click.option("--config", is_flag=True, help="Remove the files that labkit has written into /etc, too.")
def down(names: tuple[str, ...], *, config: bool) -> None:
    """Stop services that `labkit up` started, or all."""
    _as_root("down")
    from labkit.host import services

    services.down(names, click.echo)
    if config:
        for path in services.unconfigure():
            click.echo(f"removed {path}")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(*, as_json: bool) -> None:
    """Show the services; exit 1 if one that should run does not."""
    _as_root("status")
    from labkit.host import services
    from labkit.host.services import report

    found = services.status()
    click.echo(report.json(found) if as_json else report.text(found))
    if any(one.state in ("down", "failed") and one.wanted for one in found):
        sys.exit(1)


@cli.command()
@click.argument("lab", required=False)
@click.option("--output", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Store them there.")
def render(lab: str | None, output: Path | None) -> None:
    """Execute the notebook of LAB, start or all; store outputs."""
    _as_root("render")
    from labkit.course.render import render as rendered

    paths = list(_notebooks(lab))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    for path in paths:
        click.echo(rendered(path, output=output))


@cli.command()
@click.argument("lab", required=False)
def validate(lab: str | None) -> None:
    """Execute the notebook of LAB, start or all; compare outputs."""
    _as_root("validate")
    from labkit.course.validate import validate as validated

    results = []
    for path in _notebooks(lab):
        results.append(validated(path))
        click.echo(results[-1])
    if not all(result.passed for result in results):
        sys.exit(1)


@cli.command()
@click.argument("lab")
@click.argument("checkpoint")
def check(lab: str, checkpoint: str) -> None:
    """Measure a CHECKPOINT of LAB now; exit 1 if not passed."""
    verdict = _attached(lab).check(checkpoint)
    if not verdict.passed:
        sys.exit(1)


@cli.command()
@click.argument("lab")
@click.argument("checkpoint")
def hint(lab: str, checkpoint: str) -> None:
    """Show the next hint for a CHECKPOINT of LAB."""
    click.echo(_attached(lab).hint(checkpoint))


@cli.command()
@click.argument("lab")
@click.argument("checkpoint")
def solution(lab: str, checkpoint: str) -> None:
    """Show the reference solution of a CHECKPOINT of LAB."""
    click.echo(_attached(lab).solution(checkpoint))


@cli.command()
@click.argument("lab")
@click.argument("checkpoint")
def given(lab: str, checkpoint: str) -> None:
    """Make what a CHECKPOINT of LAB begins with."""
    click.echo(_attached(lab).given(checkpoint))


@cli.command()
@click.argument("lab")
@click.argument("name")
def example(lab: str, name: str) -> None:
    """Write the files of an example of LAB that are not there yet."""
    _attached(lab).example(name)


@cli.command()
@click.argument("lab")
@click.argument("command", type=click.Choice(("ADD", "CHECK", "DEL")))
@click.argument("configuration")
@click.argument("container")
@click.option("--ifname", default="eth0", show_default=True, help="What the link is called in there.")
@click.option("--args", multiple=True, metavar="KEY=VALUE", help="A word for the plugins (CNI_ARGS).")
@click.option("--capabilities", default="{}", metavar="JSON", help="For plugins that declare them, by name.")
def cni(lab: str, command: str, configuration: str, container: str, ifname: str, args: tuple[str, ...], capabilities: str) -> None:
    """Call CNI plugins for CONTAINER, a network namespace of LAB."""
    words = dict(word.partition("=")[::2] for word in args)
    try:
        wanted = json.loads(capabilities)
    except ValueError as error:
        raise LabError("--capabilities is no JSON", cause=str(error)) from None
    click.echo(_attached(lab).cni(command, configuration, container, ifname, args=words, capabilities=wanted))


@cli.command()
@click.argument("lab")
def progress(lab: str) -> None:
    """Show how far you are in LAB."""
    click.echo(_attached(lab).progress())


@cli.command()
@click.argument("target")
def parts(target: str) -> None:
    """Show who keeps TARGET: monitor, shim, daemon, clients."""
    from labkit import show
    from labkit.course import targets
    from labkit.kernel import xray

    machine = xray.Machine()
    name, pid = targets.target(target, {}, machine)
    click.echo(show.parts_view(name, xray.parts(pid, machine)))


@cli.command()
@click.argument("target", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON (docs/xray.schema.json).")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with the picture into this file.")
def xray(target: tuple[str, ...], *, as_json: bool, html: Path | None) -> None:
    """Look through containers of any runtime, by NAME or PID."""
    from labkit import show
    from labkit.course import targets
    from labkit.kernel.xray import Machine, xrays

    machine = Machine()
    if not target:
        click.echo(targets.listed(machine))
        return
    found = xrays([targets.target(word, {}, machine) for word in target], machine=machine)
    if html:
        html.write_text(show.xray_page(found), encoding="utf-8")
    if as_json:
        click.echo(show.to_json(found))
    elif html is None:
        click.echo(show.xray_views(found))


@cli.command()
@click.argument("runtimes", metavar="[RUNTIMES]", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print every fact as JSON.")
@click.option("--write", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write this machine's section of a page.")
def compare(runtimes: tuple[str, ...], *, as_json: bool, page: Path | None) -> None:
    """Run one program by every runtime; say what each leaves."""
    _as_root("compare")
    from labkit import show
    from labkit.runtimes import comparison

    found = comparison.compare(runtimes, say=lambda name: click.echo(f"{name} ...", err=True))
    if page:
        page.write_text(show.comparison_page(found, page.read_text() if page.exists() else ""))
    if as_json:
        click.echo(show.comparison_json(found))
    elif page is None:
        click.echo(show.comparison_view(found))


@cli.command()
@click.argument("destination")
@click.option("--from", "source", metavar="NAME", help="The network namespace, container or PID that sends it; else the host.")
@click.option("--brief", is_flag=True, help="Say of the rules that it met what they do, not what they are.")
def follow(destination: str, source: str | None, *, brief: bool) -> None:
    """Send a packet to ADDRESS[:PORT]; show where it comes by."""
    _as_root("follow")
    from labkit.course import packets

    found = packets.follow(destination, source, rules=not brief)
    click.echo(found)
    if not found:
        sys.exit(1)


@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", metavar="COMMAND", nargs=-1, required=True, type=click.UNPROCESSED)
def execs(command: tuple[str, ...]) -> None:
    """Run COMMAND; show who starts whom meanwhile."""
    _as_root("execs")
    from labkit.course.following import following
    from labkit.kernel import commands

    with following() as found:
        done = commands.run(command, check=False)
    click.echo(done.stdout, nl=False)
    click.echo(done.stderr, nl=False, err=True)
    click.echo(found)
    sys.exit(done.status if done.status >= 0 else 128 - done.status)


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"labkit {__version__}")


def main() -> None:
    """Run the command; an error is one line on standard error and exit status 2, never a traceback."""
    try:
        cli.main(prog_name="labkit", standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())
    except CheckFailed as error:
        _fail(str(error), status=1)
    except LabError as error:
        _fail(str(error))
    except ExceptionGroup as group:
        _fail(f"{group.message}: {'; '.join(map(str, group.exceptions))}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `labkit labs | head`: nobody reads on
    except OSError as error:
        _fail(f"{error.filename or 'the kernel'}: {error.strerror}")
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", status=130)


def _fail(message: str, status: int = 2) -> None:
    click.echo(f"labkit: {' '.join(message.split())}", err=True)
    sys.exit(status)


def _as_root(command: str) -> None:
    if os.geteuid() != 0:
        door = os.path.relpath(Path(sys.prefix, "bin", "labkit"))  # sudo's PATH has no labkit
        typed = shlex.join(["sudo", door if not door.startswith("..") else os.path.abspath(door), *sys.argv[1:]])
        raise LabError(f"{command} works on the kernel's state and needs root", remedy=typed)


def _find(lab: str) -> CourseLab:
    from labkit.course import course_map

    return course_map.find(lab)


def _notebooks(lab: str | None) -> list[Path]:
    from labkit.course import course_map

    if lab == course_map.HOME.stem:
        return [course_map.HOME]
    chosen = [_find(lab)] if lab else list(course_map.written())
    for one in chosen:
        if one.notebook() is None:
            raise LabError(f"lab {one.id} is not there yet", remedy="`labkit labs` shows which are")
    return [*([] if lab else [course_map.HOME]), *(path for one in chosen if (path := one.notebook()))]


def _needs(lab: str) -> tuple[str, ...]:
    from labkit.course import course_map

    name = course_map.module(_find(lab).id)
    try:
        module: Any = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise LabError(f"lab {lab} is not there yet", remedy="`labkit labs` shows which are") from error
    return tuple(module.NEEDS)


def _attached(lab: str) -> Lab:
    _as_root(click.get_current_context().command.name or "")
    from labkit.course.lab import attach

    return attach(_find(lab).id)
