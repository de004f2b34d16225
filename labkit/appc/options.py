"""The words of `rkt run` and `rkt prepare`: images, each followed by options of its own, and by its arguments between `--` and `---`.

An option before the first image is meant for the pod, or for all its apps; after an image, for that app alone where an app can have
it. `rkt run --net=host a.aci --exec /bin/date -- -u --- b.aci` runs two apps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from labkit.errors import LabError

Scope = Literal["pod", "app", "any"]


class Takes(Enum):
    """What follows an option."""

    TEXT = "TEXT"  # a word, the last one counts
    LIST = "LIST"  # a word, and the option may be given again
    FLAG = "FLAG"  # nothing, or `=true`, `=false`
    MAYBE = "[TEXT]"  # nothing, or a word after `=`


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        scope: whether it is meant for the pod, for the image before it, or for either.
        takes: what follows it.
        help: what it is for.
        alone: what it means where nothing follows it that could.
    """

    scope: Scope
    takes: Takes
    help: str
    alone: str = "true"


class OptionError(LabError):
    """Refuse a command line."""


GLOBAL = {
    "dir": Option("pod", Takes.TEXT, "rkt's data directory"),
    "local-config": Option("pod", Takes.TEXT, "directory of the local configuration"),
    "system-config": Option("pod", Takes.TEXT, "is passed over here"),
    "user-config": Option("pod", Takes.TEXT, "is passed over here"),
    "insecure-options": Option("pod", Takes.LIST, "security features to disable: image, tls, http, pubkey, all, ..."),
    "debug": Option("pod", Takes.FLAG, "is passed over here"),
    "trust-keys-from-https": Option("pod", Takes.FLAG, "is passed over here"),
}
"""What every command of rkt takes."""

IMAGE = {
    "name": Option("app", Takes.TEXT, "name of the app; the image's last name if not given"),
    "exec": Option("app", Takes.TEXT, "program to run in place of the image's"),
    "user": Option("app", Takes.TEXT, "user: uid, name, or the path of a file that is the user's"),
    "group": Option("app", Takes.TEXT, "group: gid, name, or the path of a file that is the group's"),
    "supplementary-gids": Option("app", Takes.TEXT, "more gids, joined by commas"),
    "working-dir": Option("app", Takes.TEXT, "working directory"),
    "environment": Option("app", Takes.LIST, "NAME=VALUE for this app"),
    "memory": Option("app", Takes.TEXT, "limit of memory, such as 50M"),
    "cpu": Option("app", Takes.TEXT, "limit of processor time, such as 500m"),
    "cpu-shares": Option("app", Takes.TEXT, "weight of processor time, 2 to 262144"),
    "oom-score-adjust": Option("app", Takes.TEXT, "the kernel's inclination to kill it, -1000 to 1000"),
    "caps-retain": Option("app", Takes.LIST, "capabilities to keep, joined by commas"),
    "caps-remove": Option("app", Takes.LIST, "capabilities to take from the default ones"),
    "seccomp": Option("app", Takes.TEXT, "mode=retain|remove[,errno=EPERM],SYSCALL..."),
    "readonly-rootfs": Option("app", Takes.FLAG, "mount the app's root read-only"),
    "mount": Option("any", Takes.LIST, "volume=NAME,target=PATH; before all images: in each app"),
    "user-annotation": Option("app", Takes.LIST, "NAME=VALUE"),
    "user-label": Option("app", Takes.LIST, "NAME=VALUE"),
    "signature": Option("app", Takes.TEXT, "file with the image's signature"),
    "stdin": Option("app", Takes.TEXT, "null, tty or stream"),
    "stdout": Option("app", Takes.TEXT, "null, tty, stream or log"),
    "stderr": Option("app", Takes.TEXT, "null, tty, stream or log"),
}
"""What an image takes after it."""

PREPARE = {
    "volume": Option("pod", Takes.LIST, "NAME,kind=host,source=PATH[,readOnly=true] or NAME,kind=empty[,mode=0755,uid=0,gid=0]"),
    "port": Option("pod", Takes.LIST, "NAME:[IP:]HOSTPORT"),
    "set-env": Option("pod", Takes.LIST, "NAME=VALUE for all apps"),
    "set-env-file": Option("pod", Takes.LIST, "file of such lines"),
    "inherit-env": Option("pod", Takes.FLAG, "pass on this environment"),
    "no-overlay": Option("pod", Takes.FLAG, "copy each image's tree instead of an overlay"),
    "pod-manifest": Option("pod", Takes.TEXT, "file with a whole pod manifest"),
    "pull-policy": Option("pod", Takes.TEXT, "never, new or update"),
    "store-only": Option("pod", Takes.FLAG, "use images of the store only"),
    "no-store": Option("pod", Takes.FLAG, "fetch images anew"),
    "private-users": Option("pod", Takes.FLAG, "is refused here"),
    "quiet": Option("pod", Takes.FLAG, "say only the pod's UUID"),
    **IMAGE,
}
"""What `prepare` takes."""

RUNNING = {
    "net": Option("pod", Takes.MAYBE, "networks, joined by commas: default, default-restricted, none, host, or your own", "default"),
    "interactive": Option("pod", Takes.FLAG, "the one app has this terminal"),
    "hostname": Option("pod", Takes.TEXT, "of the pod; rkt-UUID if not given"),
    "dns": Option("pod", Takes.LIST, "name server for /etc/resolv.conf"),
    "dns-domain": Option("pod", Takes.TEXT, "domain for it"),
    "dns-search": Option("pod", Takes.LIST, "search list for it"),
    "dns-opt": Option("pod", Takes.LIST, "options for it"),
    "hosts-entry": Option("pod", Takes.LIST, "IP=NAME for /etc/hosts; `host` for the host's own"),
    "mds-register": Option("pod", Takes.FLAG, "offer the metadata service"),
    "ipc": Option("pod", Takes.TEXT, "auto or private"),
}
"""What `run` and `run-prepared` take to run a pod."""

RUN = {**PREPARE, **RUNNING, "uuid-file-save": Option("pod", Takes.TEXT, "file that gets the UUID")}
"""What `run` takes."""


_INSECURE = {
    "all": frozenset(("image", "tls", "ondisk", "http", "pubkey", "capabilities", "paths", "seccomp")),
    "all-fetch": frozenset(("image", "tls", "http", "pubkey")),
    "all-run": frozenset(("ondisk", "capabilities", "paths", "seccomp")),
    "none": frozenset(),
}


class Given:
    """Options as they were given: to the pod, or to one image."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}

    def add(self, name: str, value: str) -> None:
        """Note one more value."""
        self._values.setdefault(name, []).append(value)

    def text(self, name: str, default: str = "") -> str:
        """Return the last value."""
        return self._values.get(name, [default])[-1]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return all values in their order."""
        return tuple(self._values.get(name, ()))

    def flag(self, name: str) -> bool:
        """Return whether a flag is set."""
        return self.text(name, "false") == "true"

    def __contains__(self, name: object) -> bool:
        return name in self._values


@dataclass
class Image:
    """One image of the line.

    Attributes:
        text: as it was typed: a name, an id, a file, a URL.
        given: the options after it.
        arguments: what stands between `--` and `---`.
    """

    text: str
    given: Given = field(default_factory=Given)
    arguments: tuple[str, ...] = ()


@dataclass
class Line:
    """What a command line says.

    Attributes:
        given: the options for the pod.
        images: the images, or other words that are no options, in their order.
    """

    given: Given = field(default_factory=Given)
    images: list[Image] = field(default_factory=list)


def parse(words: Sequence[str], options: dict[str, Option]) -> Line:
    """Read the words after the command.

    Raises:
        OptionError: an option that is unknown, lacks its value, has one that it cannot have, or follows no image and should.
    """
    line, rest = Line(), deque(words)
    while rest:
        word = rest.popleft()
        if word == "--":
            _last(line, word).arguments += _arguments(rest)
        elif word == "---":
            _last(line, word)
        elif word.startswith("-") and word != "-":
            _read(word, rest, line, options)
        else:
            line.images.append(Image(word))
    return line


def _arguments(rest: deque[str]) -> tuple[str, ...]:
    """Take the words up to `---`, which is taken too."""
    found: list[str] = []
    while rest and (word := rest.popleft()) != "---":
        found.append(word)
    return tuple(found)


def _last(line: Line, word: str) -> Image:
    if not line.images:
        raise OptionError(f"{word} must follow an image")
    return line.images[-1]


def _read(word: str, rest: deque[str], line: Line, options: dict[str, Option]) -> None:
    name, equals, value = word.removeprefix("--").partition("=")
    option = options.get(name) if word.startswith("--") else None
    if option is None:
        raise OptionError(f"unknown {'flag' if word.startswith('--') else 'shorthand flag'}: {word.partition('=')[0]}")
    if not equals and option.takes in (Takes.FLAG, Takes.MAYBE):
        value = option.alone
    elif not equals:
        if not rest:
            raise OptionError(f"flag needs an argument: --{name}")
        value = rest.popleft()
    if option.takes is Takes.FLAG:
        value = _truth(name, value)
    if option.scope == "app" or (option.scope == "any" and line.images):
        _last(line, f"--{name}").given.add(name, value)
    else:
        line.given.add(name, value)


def _truth(name: str, value: str) -> str:
    if value.lower() in ("1", "t", "true"):
        return "true"
    if value.lower() in ("0", "f", "false"):
        return "false"
    raise OptionError(f'invalid argument "{value}" for --{name}: true or false')


def insecure_options(words: Iterable[str]) -> frozenset[str]:
    """Read what `--insecure-options=` was given: `image,tls`, `all-fetch`.

    Raises:
        LabError: a word is none of rkt's.
    """
    found: set[str] = set()
    for word in (each for given in words for each in given.split(",")):
        if word not in _INSECURE and word not in _INSECURE["all"]:
            raise LabError(f'invalid argument "{word}" for --insecure-options', cause=", ".join(sorted({*_INSECURE, *_INSECURE["all"]})))
        found |= _INSECURE.get(word, {word})
    return frozenset(found)


def described(options: dict[str, Option]) -> list[tuple[str, str]]:
    """Return each option and what it is for, as the help of a command shows them."""
    words = {name: "" if each.takes is Takes.FLAG else f" {each.takes.value}" for name, each in options.items()}
    return [(f"--{name}{words[name]}", each.help) for name, each in sorted(options.items())]
