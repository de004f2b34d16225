"""The commands `rkt fetch` and `rkt trust`, and two conversions: `docker2aci`, `aci2oci`, which import what they alone need."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from labkit.appc import discovery
from labkit.appc.fetch import NEVER, NEW, UPDATE, fetch
from labkit.appc.keystore import read_key
from labkit.appc.settings import Settings, global_options
from labkit.appc.web import Web, split
from labkit.errors import LabError

_PRINTED = len("sha512-") + 32
"""How much of an image id `fetch` prints."""


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.command("fetch")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--signature", type=click.Path(path_type=Path), help="File with the signature of a local image.")
@click.option("--pull-policy", type=click.Choice((NEW, NEVER, UPDATE)), default=UPDATE, help="Where to look: the store, outside, both.")
@click.option("--store-only", is_flag=True, help="As --pull-policy=never.")
@click.option("--no-store", is_flag=True, help="As --pull-policy=update.")
@click.option("--full", is_flag=True, help="Print the whole id.")
@global_options
def fetch_command(
    settings: Settings, images: tuple[str, ...], signature: Path | None, pull_policy: str, store_only: bool, no_store: bool, full: bool
) -> None:
    """Fetch images, and store them: a file, a URL, a name that discovery leads to, docker://NAME."""
    if signature and len(images) > 1:
        raise LabError("--signature is for one image")
    policy = NEVER if store_only else UPDATE if no_store else pull_policy
    store, keystore = settings.store(), settings.keystore()
    for image in images:
        key = fetch(store, keystore, image, insecure=settings.insecure, policy=policy, signature=signature, say=_say)
        click.echo(str(key) if full else str(key)[:_PRINTED])


@click.command("trust")
@click.argument("keys", nargs=-1, metavar="[PUBKEY]...")
@click.option("--prefix", default="", help="The names that the key may sign, from their beginning.")
@click.option("--root", is_flag=True, help="Trust the key for every name.")
@click.option("--skip-fingerprint-review", is_flag=True, help="Trust it without a question.")
@click.option("--insecure-allow-http", is_flag=True, help="Look for the key, or fetch it, over http too.")
@global_options
def trust(
    settings: Settings, keys: tuple[str, ...], prefix: str, root: bool, skip_fingerprint_review: bool, insecure_allow_http: bool
) -> None:
    """Trust keys, from a file, a URL, or found by discovery, to sign the images below a prefix."""
    if bool(prefix) == root:
        why = "--root and --prefix usage mutually exclusive" if root else "a key is trusted for a --prefix, or, with --root, for every name"
        raise LabError(why)
    if "://" in prefix:
        raise LabError(f"--prefix must not contain a URL scheme, omit {prefix.partition('://')[0]}://")
    if root and not keys:
        raise LabError("--root needs the file or the URL of a key")
    plain = insecure_allow_http or "pubkey" in settings.insecure
    web = Web(plain=plain, unverified="tls" in settings.insecure, say=_say)
    for place in keys or discovery.keys(prefix, web):
        data = web.page(place) if split(place).scheme in ("http", "https") else Path(place).read_bytes()
        if _reviewed(place, data, prefix, skip=skip_fingerprint_review):
            file = settings.keystore().trust(data, prefix)
            _say(f'Added {f"key for prefix {_quoted(prefix)}" if prefix else "root key"} at "{file}"')


def _reviewed(place: str, data: bytes, prefix: str, *, skip: bool) -> bool:
    """Show a key, and ask whether it is the one; tell the answer."""
    key = read_key(data)
    _say(f'prefix: "{prefix}"\nkey: "{place}"\ngpg key fingerprint is: {key.spaced()}')
    for user in key.users:
        _say(f"\t{user}")
    whom = f"for prefix {_quoted(prefix)}" if prefix else "for all prefixes"
    if not skip and _answer("Are you sure you want to trust this key (yes/no)?") != "yes":
        _say(f'Not trusting "{place}"')
        return False
    _say(f'Trusting "{place}" {whom} {"without" if skip else "after"} fingerprint review.')
    return True


def _answer(question: str) -> str:
    answer: str = click.prompt(question, type=click.Choice(("yes", "no")), show_choices=False, prompt_suffix="\n", err=True)
    return answer


def _quoted(text: str) -> str:
    return f'"{text}"'


@click.command("docker2aci")
@click.argument("image", metavar="docker://NAME")
@global_options
def docker2aci(_settings: Settings, image: str) -> None:
    """Convert an image of a registry into a file REPOSITORY-TAG.aci of the working directory."""
    from labkit.appc import docker
    from labkit.images.reference import Reference

    text = image.removeprefix("docker://")
    reference = Reference.parse(text)
    file = Path(f"{reference.repository.replace('/', '-')}-{reference.tag.replace(':', '_')}.aci")
    with TemporaryDirectory(prefix="docker2aci-") as work:
        shutil.move(docker.convert(text, Path(work), say=_say), file)
    click.echo(f"\nGenerated ACI(s):\n{file}")


@click.command("aci2oci")
@click.argument("image")
@click.argument("layout", type=click.Path(path_type=Path))
@click.option("--name", default="latest", help="By which the layout lists it.")
@global_options
def aci2oci(settings: Settings, image: str, layout: Path, name: str) -> None:
    """Convert an image of the store into an OCI layout."""
    from labkit.appc.to_oci import to_oci
    from labkit.images.layout import Layout

    store = settings.store()
    done = to_oci(store, store.find(image), Layout.create(layout), name)
    for each in done.lost:
        _say(f"aci2oci: OCI has no word for the {each}")
    click.echo(done.manifest.digest)
