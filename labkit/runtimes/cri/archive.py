"""An image made of a directory: one layer, one configuration, an archive that ctr and skopeo take.

See: OCI image specification, "Image Layout"
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit import trace
from labkit.errors import CommandError
from labkit.kernel import processes, rooted

_TYPE = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def make(rootfs: Path, archive: Path, name: str, labels: Mapping[str, str]) -> None:
    """Write an image of a directory into an archive.

    Args:
        rootfs: the directory.
        archive: the file; beside it a directory of its name with `.d` is made and removed.
        name: of the image, with its tag.
        labels: in its configuration: an image of other labels has another id.

    Raises:
        CommandError: tar could not read the directory.
    """
    layout = archive.with_name(f"{archive.name}.d")
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    with trace.silent():
        _tar(["--numeric-owner", "--xattrs", "--one-file-system", "-C", str(rootfs), "."], layout / "layer")
    layer = _descriptor(layout / "layer", "layer.v1.tar")
    os.rename(layout / "layer", blobs / layer["digest"].split(":")[1])
    config = {
        "created": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Labels": dict(labels), "Env": [f"PATH={rooted.PATH}"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    described = _blob(blobs, config, "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": f"{_TYPE}.manifest.v1+json", "config": described, "layers": [layer]}
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    index = {"schemaVersion": 2, "manifests": [{**_blob(blobs, manifest, "manifest.v1+json"), "annotations": names}]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    with trace.silent():
        _tar(["-C", str(layout), "oci-layout", "index.json", "blobs"], archive)
    shutil.rmtree(layout)


def _tar(words: Sequence[str], target: Path) -> None:
    argv = ["tar", "--create", "--file", str(target), *words]
    done = processes.run(argv, env=rooted.ENVIRONMENT, cwd="/")
    if done.status not in (0, 1):  # 1: a file changed while it was read
        raise CommandError(argv, done.status, done.stdout)


def _blob(blobs: Path, content: Mapping[str, Any], kind: str) -> dict[str, Any]:
    text = json.dumps(content).encode()
    (blobs / hashlib.sha256(text).hexdigest()).write_bytes(text)
    return {"mediaType": f"{_TYPE}.{kind}", "digest": f"sha256:{hashlib.sha256(text).hexdigest()}", "size": len(text)}


def _descriptor(file: Path, kind: str) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"mediaType": f"{_TYPE}.{kind}", "digest": f"sha256:{digest}", "size": file.stat().st_size}
