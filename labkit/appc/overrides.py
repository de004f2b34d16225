"""What the options after an image change in its app: the image says how it is meant to be run, the command line has the last word."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from labkit.appc import isolator_values as isolators
from labkit.appc.app import App
from labkit.appc.image_manifest import ImageManifest
from labkit.appc.isolator_values import Isolator
from labkit.appc.options import Given, Image, Line, OptionError
from labkit.appc.types import Pairs

_EXCLUDING = {
    isolators.CAPABILITIES_RETAIN: isolators.CAPABILITIES_REMOVE,
    isolators.CAPABILITIES_REMOVE: isolators.CAPABILITIES_RETAIN,
    isolators.SECCOMP_RETAIN: isolators.SECCOMP_REMOVE,
    isolators.SECCOMP_REMOVE: isolators.SECCOMP_RETAIN,
}


def app_of(image: Image, manifest: ImageManifest, line: Line) -> App:
    """Return the app that is run: the image's, with what the line says in place of it.

    Raises:
        OptionError: an option whose value cannot be read, or nothing to run.
    """
    given, app = image.given, manifest.app
    if app is None:
        if "exec" not in given:
            raise OptionError(f"image {manifest.name} has no app section, and no --exec says what to run")
        app = App(exec=(), user="0", group="0")
    return replace(
        app,
        exec=((given.text("exec"),) if "exec" in given else app.exec) + image.arguments,
        user=given.text("user", app.user),
        group=given.text("group", app.group),
        supplementary_gids=_gids(given) if "supplementary-gids" in given else app.supplementary_gids,
        working_directory=given.text("working-dir", app.working_directory),
        environment=_environment(app.environment, line.given, given),
        isolators=_isolators(app.isolators, given),
        user_annotations=_merged(app.user_annotations, given.texts("user-annotation"), "user-annotation"),
        user_labels=_merged(app.user_labels, given.texts("user-label"), "user-label"),
    )


def pairs(words: Iterable[str], option: str) -> Pairs:
    """Read `NAME=VALUE` words.

    Raises:
        OptionError: one has no name or no equals sign.
    """
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise OptionError(f'invalid argument "{word}" for --{option}: NAME=VALUE')
        found.append((name, value))
    return tuple(found)


def _merged(first: Pairs, words: Iterable[str], option: str) -> Pairs:
    return tuple({**dict(first), **dict(pairs(words, option))}.items())


def _environment(image: Pairs, pod: Given, app: Given) -> Pairs:
    """Return the variables: of this process, of the image, of files, of the pod, of the app; a later one takes the place of an earlier."""
    inherited = dict(os.environ) if pod.flag("inherit-env") else {}
    files = [line for name in pod.texts("set-env-file") for line in _lines(Path(name))]
    return tuple(
        {
            **{name: value for name, value in inherited.items() if name.isidentifier()},
            **dict(image),
            **dict(pairs(files, "set-env-file")),
            **dict(pairs(pod.texts("set-env"), "set-env")),
            **dict(pairs(app.texts("environment"), "environment")),
        }.items()
    )


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line.strip() and line[0] not in "#;"]


def _gids(given: Given) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in given.text("supplementary-gids").split(","))
    except ValueError as error:
        raise OptionError(f'invalid argument "{given.text("supplementary-gids")}" for --supplementary-gids: GID,GID') from error


def _isolators(image: tuple[Isolator, ...], given: Given) -> tuple[Isolator, ...]:
    """Return the image's isolators, those of the line in place of theirs of the same name, or of the opposite meaning."""
    found = tuple(_asked(given))
    names = {each.name for each in found}
    excluded = {_EXCLUDING[name] for name in names if name in _EXCLUDING}
    if names & excluded:
        raise OptionError("--caps-retain and --caps-remove exclude each other")
    return (*(each for each in image if each.name not in names | excluded), *found)


def _asked(given: Given) -> Iterable[Isolator]:
    for option, name in (("memory", isolators.MEMORY), ("cpu", isolators.CPU)):
        if option in given:
            yield Isolator(name, {"request": given.text(option), "limit": given.text(option)})
    for option, name in (("cpu-shares", isolators.CPU_SHARES), ("oom-score-adjust", isolators.OOM_SCORE_ADJ)):
        if option in given:
            yield Isolator(name, _number(given.text(option), option))
    for option, name in (("caps-retain", isolators.CAPABILITIES_RETAIN), ("caps-remove", isolators.CAPABILITIES_REMOVE)):
        if option in given:
            yield Isolator(name, {"set": [word for words in given.texts(option) for word in words.split(",")]})
    if "seccomp" in given:
        yield _seccomp(given.text("seccomp"))


def _number(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise OptionError(f'invalid argument "{text}" for --{option}: a whole number') from error


def _seccomp(text: str) -> Isolator:
    """Read `mode=retain,errno=EPERM,chmod,chown`."""
    words = text.split(",")
    told = dict(word.split("=", 1) for word in words if "=" in word)
    names = {"retain": isolators.SECCOMP_RETAIN, "remove": isolators.SECCOMP_REMOVE}
    if told.get("mode") not in names or told.keys() - {"mode", "errno"}:
        raise OptionError(f'invalid argument "{text}" for --seccomp: mode=retain|remove[,errno=NAME],SYSCALL...')
    value: dict[str, object] = {"set": [word for word in words if "=" not in word]}
    return Isolator(names[told["mode"]], {**value, "errno": told["errno"]} if "errno" in told else value)
