"""What labs measure of rkt's store of images, as it lies on disk: which image is there, and whether its signature was asked for."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from labkit.appc.image_manifest import ImageManifest
from labkit.appc.keystore import Keystore
from labkit.appc.store import NotInStoreError, Store
from labkit.appc.types import ImageID
from labkit.course.checkpoints import Verdict


def found(data: Path, name: str) -> ImageID | None:
    """Return the key of an image of a store; None where it has none of this name.

    Args:
        data: rkt's directory.
        name: as it is typed, `coreos.com/etcd:v3.1.7`.
    """
    with suppress(NotInStoreError):
        return Store(data).find(name)
    return None


def manifest(data: Path, name: str) -> ImageManifest | None:
    """Return the manifest of an image of a store; None where it has none of this name."""
    key = found(data, name)
    return Store(data).manifest(key) if key else None


def signed(data: Path, key: ImageID) -> bool:
    """Tell whether the signature of an image was checked when it came: rkt keeps that with the URL from which it came."""
    for file in (data / "cas/remote").glob("*.json"):
        with suppress(OSError, ValueError):
            record = json.loads(file.read_bytes())
            if record.get("blobKey") == str(key) and record.get("signed"):
                return True
    return False


def checked(data: Path, local: Path, name: str) -> Verdict:
    """Measure that a store has an image whose signature was checked when it came.

    Args:
        data: rkt's directory.
        local: of its local configuration, with the trusted keys.
        name: of the image.
    """
    key = found(data, name)
    trusted = bool(Keystore(local).keys(name.partition(":")[0]))
    cause = None if trusted else f"no key is trusted for {name.partition(':')[0]}"
    if key is None:
        return Verdict(passed=False, measured=f"the store has no {name}", cause=cause)
    if not signed(data, key):
        return Verdict(passed=False, measured=f"the store has {name}", cause=cause or "it came without a look at its signature")
    return Verdict(passed=True, measured=f"the store has {name}, its signature was checked when it came")
