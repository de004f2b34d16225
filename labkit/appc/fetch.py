"""Fetch an image into the store: from a file, a URL, by discovery of its name, or out of a docker registry; its signature checked.

See: appc spec discovery.md; rkt's image-fetching-behavior.md
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

from labkit.appc import aci
from labkit.appc.discovery import AppName, endpoints
from labkit.appc.image_manifest import Dependency
from labkit.appc.keystore import Keystore
from labkit.appc.store import NotInStoreError, Store
from labkit.appc.types import ImageID
from labkit.appc.web import Web, WebError, split
from labkit.errors import LabError

NEW, NEVER, UPDATE = "new", "never", "update"
"""The policies: look into the store first; only there; only outside, where the image may have changed."""

STAND_IN = "io.labkit.stand-in"
"""The annotation of an image that takes the place of another: which."""

_MOST_DEPENDENCIES = 100
_ID = re.compile(r"sha512-[0-9a-f]+")


def fetch(
    store: Store,
    keystore: Keystore,
    text: str,
    *,
    insecure: frozenset[str] = frozenset(),
    policy: str = NEW,
    signature: Path | None = None,
    say: Callable[[str], object] = str,
) -> ImageID:
    """Let the store have an image, and what it stands on; return its key.

    Args:
        store: where it goes.
        keystore: the keys that are trusted.
        text: a file (`./web.aci`), a URL (`https://`, `docker://`, `file://`), a name (`coreos.com/etcd:v3.1.7`), or the beginning
            of the id of an image that the store has.
        insecure: what is not checked, as `options.insecure_options` returns it.
        policy: `new`, `never` or `update`.
        signature: the file of the signature of a local file; the one beside it, `.asc`, without.
        say: told each line of progress.

    Raises:
        FileNotFoundError: the file is not there; or its signature, which is asked for.
        SignatureError: nobody trusted has signed it.
        DiscoveryError: no page says where it is.
        WebError: the web did not give it.
        LabError: it is no ACI, or another image than the one that was asked for.
    """
    web = Web(plain="http" in insecure, unverified="tls" in insecure, say=say)
    job = _Job(store, keystore, insecure, policy, web, say)
    return job.whole(text, signature)


@dataclass
class _Job:
    """One fetch, with the images that it drags along."""

    store: Store
    keystore: Keystore
    insecure: frozenset[str]
    policy: str
    web: Web
    say: Callable[[str], object]
    dragged: set[str] = field(default_factory=set)

    def whole(self, text: str, signature: Path | None = None) -> ImageID:
        """Fetch an image, and then its dependencies."""
        key = self._one(text, signature)
        below = replace(self, policy=NEW if self.policy == UPDATE else self.policy)
        for each in self.store.manifest(key).dependencies:
            below.dependency(each)
        return key

    def dependency(self, wanted: Dependency) -> None:
        name = str(AppName(wanted.image_name, wanted.labels))
        if name in self.dragged:
            return
        self.dragged.add(name)
        if len(self.dragged) > _MOST_DEPENDENCIES:
            raise LabError(f"more than {_MOST_DEPENDENCIES} dependencies")
        key = self._known(str(wanted.image_id)) if wanted.image_id else None
        key = key or self.whole(name)
        if wanted.image_id and not str(wanted.image_id).startswith(str(key)):
            raise LabError(f"dependency {name} is {key}", cause=f"the manifest asks for {wanted.image_id}")

    def _one(self, text: str, signature: Path | None) -> ImageID:
        if _ID.fullmatch(text):
            return self.store.find(text)
        scheme = split(text).scheme if "://" in text else ""
        if scheme == "docker":
            return self._docker(text)
        if scheme in ("http", "https"):
            return self._url(text, signature)
        if scheme == "file":
            return self._file(Path(unquote(split(text).path)), signature)
        if scheme:
            raise LabError(f'rkt only supports http, https, docker or file URLs ("{text}")')
        if text.startswith(("/", "./", "../")) or (text.endswith(".aci") and Path(text).exists()):
            return self._file(Path(text), signature)
        return self._name(AppName.parse(text))

    def _known(self, text: str) -> ImageID | None:
        """Return the key of an image of the store; None where it has none."""
        try:
            return self.store.find(text)
        except NotInStoreError:
            return None

    def _in_store(self, text: str, key: ImageID | None) -> ImageID | None:
        """Return what the store has, where the policy looks there."""
        if self.policy == UPDATE:
            return None
        if key:
            self.say(f"image: using image from local store for image name {text}")
        elif self.policy == NEVER:
            raise LabError(f"unable to fetch image {text} from the store", remedy="--pull-policy=new")
        return key

    def _file(self, file: Path, signature: Path | None) -> ImageID:
        if file.exists() and not file.is_file():
            raise LabError(f"{file} is no regular file")
        self.say(f"image: using image from file {file}")
        with self._workshop() as work:
            copy = work / "image.aci"
            shutil.copyfile(file, copy)  # what is checked is what is kept, whoever writes the file meanwhile
            if "image" not in self.insecure:
                shutil.copyfile(signature or file.with_name(f"{file.name}.asc"), work / "image.aci.asc")
            return self._kept(copy, None)

    def _docker(self, text: str) -> ImageID:
        from labkit.appc import docker  # with all that knows registries: not for a pod that starts from the store
        from labkit.images.reference import Reference

        reference = Reference.parse(text.removeprefix("docker://"))
        name = f"{docker.aci_name(reference)}:{reference.tag}"
        if key := self._in_store(name, self._known(name) if self.policy != UPDATE else None):
            return key
        if "image" not in self.insecure:
            why = "signature verification for docker images is not supported (try --insecure-options=image)"
            raise LabError(why)
        self.say(f'image: remote fetching from URL "{text}"')
        with self._workshop() as work:
            return self.store.put(docker.convert(text.removeprefix("docker://"), work, say=self.say))

    def _name(self, app: AppName) -> ImageID:
        if key := self._in_store(str(app), self._known(str(app))):
            return key
        self.say(f"image: searching for app image {app.name}")
        places = endpoints(app, self.web)
        for number, place in enumerate(places, 1):
            try:
                return self._download(place.aci, place.signature, app)
            except WebError:
                if number == len(places):
                    raise
        raise AssertionError("endpoints gives at least one")

    def _url(self, url: str, signature: Path | None) -> ImageID:
        record = self._record(url)
        if key := self._in_store(url, self._known(record.get("blobKey", "-"))):
            return key
        return self._download(url, f"{url}.asc", None, signature)

    def _download(self, url: str, signature_url: str, app: AppName | None, signature: Path | None = None) -> ImageID:
        """Fetch what a URL has, unless it is what the store has from there; the signature first, as it is the smaller one."""
        self.say(f'image: remote fetching from URL "{url}"')
        record = self._record(url)
        known = self._known(record.get("blobKey", "-"))
        with self._workshop() as work:
            file, asc = work / "image.aci", work / "image.aci.asc"
            if "image" not in self.insecure:
                if signature:
                    shutil.copyfile(signature, asc)
                else:
                    self.say(f"image: downloading signature from {signature_url}")
                    asc.write_bytes(self.web.page(signature_url))
            checked = record.get("signed") or "image" in self.insecure
            got = self.web.download(url, file, etag=record.get("etag", "") if known and checked else "")
            if got.unchanged and known:
                self.say(f"image: using image from local store for url {url}")
                return known
            self.say(f"Downloading ACI: {got.size / 1e6:.2f} MB/{got.size / 1e6:.2f} MB")
            key = self._kept(file, app)
        self._remember({"aciURL": url, "etag": got.etag, "blobKey": str(key), "signed": "image" not in self.insecure})
        return key

    def _kept(self, file: Path, app: AppName | None) -> ImageID:
        """Check an archive against what was asked for and against its signature, beside it; put it into the store."""
        manifest = aci.check(file)
        if app and manifest.name != app.name:
            raise LabError(f"the image is {manifest.name}, not {app.name}", cause="its manifest has another name")
        for label, value in app.labels if app else ():
            if manifest.label(label) != value:
                raise LabError(f"the image has {label} {manifest.label(label) or 'not set'}, not {value}", cause="by its manifest")
        if "image" not in self.insecure:
            signer = self.keystore.verify(manifest.name, file, file.with_name(f"{file.name}.asc"))
            self.say("image: signature verified:")
            for user in signer.users:
                self.say(f"  {user}")
        if stands_for := manifest.annotation(STAND_IN):
            self.say(f"image: the lab's own, in place of {stands_for}: {manifest.annotation(f'{STAND_IN}.is') or 'a stand-in'}")
        return self.store.put(file, latest=app is not None and app.label("version") is None)

    @contextmanager
    def _workshop(self) -> Iterator[Path]:
        """Make a directory on the file system of the store for what is half fetched, and take it away."""
        place = self.store.directory / "cas" / "tmp"
        place.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="fetch-", dir=place) as work:
            yield Path(work)

    def _record(self, url: str) -> dict[str, Any]:
        """Return what is known of a URL: the key and the ETag of what it had."""
        try:
            found = json.loads(self._record_file(url).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and found.get("aciURL") == url else {}

    def _remember(self, record: dict[str, object]) -> None:
        file = self._record_file(str(record["aciURL"]))
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(record))
        partial.replace(file)

    def _record_file(self, url: str) -> Path:
        return self.store.directory / "cas" / "remote" / f"{hashlib.sha256(url.encode()).hexdigest()}.json"
