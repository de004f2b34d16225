"""Discovery: from an image's name to the URLs of the image, its signature and the keys, by what a web page says about itself.

The page at `https://NAME?ac-discovery=1` has lines such as
`<meta name="ac-discovery" content="example.com https://example.com/images/{name}-{version}-{os}-{arch}.{ext}">`.
See: appc spec discovery.md, "Meta Discovery"
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import quote

from labkit.appc.types import ac_identifier
from labkit.appc.web import Web, WebError
from labkit.errors import LabError

IMAGE, KEYS = "ac-discovery", "ac-discovery-pubkeys"
"""The names of the two meta tags."""
DEFAULT_VERSION = "latest"
"""What discovery asks for where a name has no version."""

_ARCHITECTURES = {"x86_64": "amd64", "i686": "i386"}
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class DiscoveryError(LabError):
    """Say that no page tells where an image is."""


@dataclass(frozen=True)
class AppName:
    """An image's name as it is typed.

    Attributes:
        name: without labels.
        labels: that were typed, version, os and arch among them.
    """

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> AppName:
        """Read `coreos.com/etcd`, `coreos.com/etcd:v3.1.7`, `coreos.com/etcd,version=v3.1.7,os=linux`.

        Raises:
            LabError: the name is no identifier of appc, a label has no value, or is given twice.
        """
        head, *rest = text.split(",")
        name, colon, version = head.partition(":")
        given = [("version", version)] if colon else []
        for word in rest:
            label, equals, value = word.partition("=")
            if not equals or not value:
                raise LabError(f"{text!r}: {word!r} is no label", cause="a label is NAME=VALUE")
            given.append((label, value))
        if colon and not version:
            raise LabError(f"{text!r}: no version behind the colon")
        names = [label for label, _ in given]
        twice = next((label for label in names if names.count(label) > 1), None)
        if twice:
            raise LabError(f"{text!r}: the label {twice} is given twice")
        return cls(ac_identifier(name, "image name"), tuple((ac_identifier(label, "label"), value) for label, value in given))

    def label(self, name: str) -> str | None:
        """Return what a label says; None where it was not typed."""
        return dict(self.labels).get(name)

    def complete(self) -> dict[str, str]:
        """Return all labels, with the version, os and arch that discovery takes where none was typed."""
        machine = platform.machine()
        usual = {"version": DEFAULT_VERSION, "os": "linux", "arch": _ARCHITECTURES.get(machine, machine)}
        return {**usual, **dict(self.labels)}

    def __str__(self) -> str:
        version = self.label("version")
        others = [f"{label}={value}" for label, value in self.labels if label != "version"]
        return ",".join([f"{self.name}:{version}" if version else self.name, *others])


@dataclass(frozen=True)
class Endpoint:
    """Where an image is.

    Attributes:
        aci: its URL.
        signature: the URL of its signature.
    """

    aci: str
    signature: str


@dataclass(frozen=True)
class Tag:
    """A meta tag of discovery: for the names that begin with `prefix` look at `template`."""

    kind: str
    prefix: str
    template: str

    def speaks_of(self, name: str) -> bool:
        """Tell whether a name lies below the prefix."""
        return name == self.prefix or name.startswith(f"{self.prefix.rstrip('/')}/")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[Tag] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        content = (given.get("content") or "").split()
        if tag == "meta" and given.get("name") in (IMAGE, KEYS) and len(content) == 2:
            self.tags.append(Tag(str(given["name"]), *content))


def tags(page: bytes) -> tuple[Tag, ...]:
    """Return the meta tags of discovery in an HTML page."""
    parser = _Page()
    with suppress(AssertionError):  # Python's parser raises it for a broken <![; what stands before it counts
        parser.feed(page.decode("utf-8", "replace"))
    return tuple(parser.tags)


def endpoints(app: AppName, web: Web) -> tuple[Endpoint, ...]:
    """Return where an image is said to be, the first to be tried first.

    Shell:
        curl 'https://NAME?ac-discovery=1' | grep ac-discovery

    Raises:
        DiscoveryError: no page of the name, or of a path above it, says so.
    """
    for found in _told(app.name, IMAGE, web):
        if places := endpoints_of(app, found):
            return places
    raise DiscoveryError("discovery failed", cause=f"no page of {app.name} has a meta tag {IMAGE} for it")


def endpoints_of(app: AppName, found: Iterable[Tag]) -> tuple[Endpoint, ...]:
    """Return where tags say that an image is; a template that asks for a label that nobody gave says nothing."""
    values = {"name": app.name, **app.complete()}
    filled = (_filled(each.template, values) for each in found if each.kind == IMAGE and each.speaks_of(app.name))
    return tuple(each for each in filled if each)


def keys(prefix: str, web: Web) -> tuple[str, ...]:
    """Return the URLs of the public keys that sign the images below a prefix.

    Raises:
        DiscoveryError: no page of it, or of a path above it, names one.
    """
    for found in _told(prefix, KEYS, web):
        return tuple(dict.fromkeys(each.template for each in found))
    raise DiscoveryError("discovery failed", cause=f"no page of {prefix} has a meta tag {KEYS} for it")


def _told(name: str, kind: str, web: Web) -> Iterator[list[Tag]]:
    """Ask the page of a name, then those of the paths above it; give what each says of the name.

    Raises:
        DiscoveryError: the host does not answer at all.
    """
    parts = name.split("/")
    for length in range(len(parts), 0, -1):
        page = _page("/".join(parts[:length]), web)
        if found := [each for each in tags(page) if each.kind == kind and each.speaks_of(name)]:
            yield found


def _page(place: str, web: Web) -> bytes:
    """Return the page of a name, over the first scheme that answers; nothing where it has none."""
    lost: WebError | None = None
    for scheme in web.schemes:
        try:
            return web.page(f"{scheme}://{place}?{IMAGE}=1")
        except WebError as error:
            lost = error
    if lost and not lost.status:
        raise DiscoveryError("discovery failed", cause=str(lost), remedy=_remedy(web)) from lost
    return b""


def _filled(template: str, values: dict[str, str]) -> Endpoint | None:
    """Put the values into a template; None where it asks for one that nobody gave."""
    if not set(_PLACEHOLDER.findall(template)) <= {*values, "ext"}:
        return None

    def with_ext(ext: str) -> str:
        return _PLACEHOLDER.sub(lambda found: quote({**values, "ext": ext}[found[1]], safe="/~"), template)

    return Endpoint(with_ext("aci"), with_ext("aci.asc"))


def _remedy(web: Web) -> str | None:
    return None if "http" in web.schemes else "a server without TLS: --insecure-options=http"
