"""An ACI put where discovery leads to: files below the name of their host, the page that says so, a signature and its key.

`SITES/github.com/coreos/etcd/releases/download/v3.1.7/etcd-v3.1.7-linux-amd64.aci` is what a server of `github.com` sends for that path.
See: appc spec discovery.md; gpg(1)
"""

from __future__ import annotations

import html
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from labkit.appc import aci
from labkit.appc.discovery import IMAGE, KEYS, AppName, Tag, endpoints_of, tags
from labkit.errors import LabError
from labkit.kernel import commands

PAGE = "ac-discovery.html"
"""The file of the page that a server sends for `?ac-discovery=1`."""


class Signer:
    """A key pair of OpenPGP that signs while the block of `signer` lasts; then the secret one is gone.

    Args:
        home: GNUPGHOME.
        user: whose key it says it is.
    """

    def __init__(self, home: Path, user: str) -> None:
        self._home, self.user = home, user

    def public(self) -> bytes:
        """Return the public key, armored.

        Shell:
            gpg --armor --export
        """
        return self._gpg("--armor", "--export").stdout.encode()

    def sign(self, file: Path, signature: Path) -> None:
        """Write the detached signature of a file, armored.

        Shell:
            gpg --armor --output FILE.asc --detach-sign FILE
        """
        self._gpg("--armor", "--yes", "--output", str(signature), "--detach-sign", str(file))

    def _gpg(self, *arguments: str) -> commands.Completed:
        own = ["gpg", "--homedir", str(self._home), "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
        return commands.run([*own, *arguments], timeout=300)


@contextmanager
def signer(user: str) -> Iterator[Signer]:
    """Make a key pair (RSA, which every program that checked ACIs could read), and forget it afterwards.

    Raises:
        CommandError: gpg failed.
        UnsupportedError: gpg is not installed.
    """
    with TemporaryDirectory(prefix="rkt-sign-") as directory:
        home = Path(directory)
        made = Signer(home, user)
        try:
            made._gpg("--quick-generate-key", user, "rsa3072", "sign", "never")
            yield made
        finally:
            commands.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, timeout=60)


@dataclass(frozen=True)
class Publication:
    """How discovery leads to an image.

    Attributes:
        prefix: of the names that the page speaks of.
        template: the URL of their images, with {name}, {version}, {os}, {arch} and {ext}.
        key: the URL of the key that signs them.
    """

    prefix: str
    template: str
    key: str

    def tags(self) -> tuple[Tag, Tag]:
        """Return what a page says of it."""
        return Tag(IMAGE, self.prefix, self.template), Tag(KEYS, self.prefix, self.key)


def publish(sites: Path, publication: Publication, file: Path, by: Signer | None) -> Path:
    """Put an ACI, its signature, the key and the page below the names of their hosts; return where the ACI lies.

    Args:
        sites: the directory with one directory for each host.
        publication: how discovery leads there.
        file: the ACI.
        by: who signs it; None leaves it without a signature.

    Raises:
        LabError: it is no ACI; the template does not lead to an image of its name.
    """
    manifest = aci.check(file)
    name = AppName(manifest.name, manifest.labels)
    places = endpoints_of(name, (Tag(IMAGE, publication.prefix, publication.template),))
    if not places:
        raise LabError(f"{publication.template} does not lead to {name}")
    placed = _place(sites, places[0].aci)
    shutil.copyfile(file, placed)
    if by:
        by.sign(placed, _place(sites, places[0].signature))
        _place(sites, publication.key).write_bytes(by.public())
    parts = publication.prefix.split("/")
    for length in range(1, len(parts) + 1):  # of the host, and of each path down to the prefix
        _say(_place(sites, f"https://{'/'.join(parts[:length])}/{PAGE}"), publication)
    return placed


def _say(page: Path, publication: Publication) -> None:
    """Let a page speak of an image, and still of those that it spoke of."""
    before = tags(page.read_bytes()) if page.exists() else ()
    said = dict.fromkeys([*(each for each in before if each.prefix != publication.prefix), *publication.tags()])
    lines = (f'<meta name="{each.kind}" content="{html.escape(f"{each.prefix} {each.template}")}">' for each in said)
    page.write_text("\n".join(["<!DOCTYPE html>", "<title>App Container images</title>", *lines, ""]))


def _place(sites: Path, url: str) -> Path:
    parts = urlsplit(url)
    file = sites / parts.netloc / parts.path.strip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    return file
