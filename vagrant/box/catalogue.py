#!/usr/bin/python3
"""Pack the disk of a built box for Vagrant's providers, and write the catalogue that Vagrant reads: metadata.json.

catalogue.py BOX --arch amd64 [--url https://example.org/boxes] libvirt virtualbox

With --url the catalogue names that web space instead of this directory: the files of BOX are then put there, and LAB_BOX_URL
is URL/metadata.json.
"""

import argparse
import datetime
import hashlib
import io
import json
import os
import string
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

NAME = "labkit"
GIBIBYTE = 1 << 30
HERE = Path(__file__).parent


def main() -> None:
    """Pack what is not packed yet, then write the catalogue."""
    parser = argparse.ArgumentParser()
    parser.add_argument("box", type=Path)
    parser.add_argument("--arch", default="amd64")
    parser.add_argument("--url", default="")
    parser.add_argument("formats", nargs="*")
    given = parser.parse_intermixed_args()
    for name in given.formats:
        if name not in PACKERS:
            parser.error(f"no box for {name!r}; there are {', '.join(PACKERS)}")
    for name in ["libvirt", *given.formats]:
        packed = given.box / file_name(given.arch, name)
        if not packed.exists():
            PACKERS[name](given.box, given.arch, packed)
    written = catalogue(given.box, given.arch, given.url or given.box.resolve().as_uri())
    replace(given.box / "metadata.json", (json.dumps(written, indent=2) + "\n").encode())


def file_name(arch: str, provider: str) -> str:
    """Return the name of a packed box."""
    return f"{NAME}-{arch}-{provider}.box"


def catalogue(box: Path, arch: str, url: str) -> dict[str, object]:
    """Describe each packed box with its checksum, as Vagrant has it."""
    there = [(name, box / file_name(arch, name)) for name in PACKERS if (box / file_name(arch, name)).exists()]
    made = datetime.datetime.fromtimestamp(there[0][1].stat().st_mtime, datetime.UTC)
    known = sums(box / "SHA256SUMS", [file for _, file in there])
    providers = [
        {"name": name, "url": f"{url}/{file.name}", "checksum_type": "sha256", "checksum": known[file.name], "architecture": arch}
        for name, file in there
    ]
    return {
        "name": NAME,
        "description": "Debian 13 with the tools of the course on containers, JupyterLab and the images for working offline.",
        "versions": [{"version": f"13.{made:%Y%m%d}.{int(f'{made:%H%M%S}')}", "providers": providers}],
    }


def sums(listing: Path, files: list[Path]) -> dict[str, str]:
    """Return the hash of each file; one that is listed already is not read again: the first one stands, so that a damaged box is seen."""
    known = dict(reversed(line.split("  ", 1)) for line in listing.read_text().splitlines()) if listing.exists() else {}
    for file in files:
        if file.name not in known:
            with file.open("rb") as stream:
                known[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    replace(listing, "".join(f"{known[name]}  {name}\n" for name in sorted(known)).encode())
    return known


def pack_libvirt(box: Path, arch: str, packed: Path) -> None:
    """Pack the qcow2 for libvirt and QEMU; it then lies in the packed box only."""
    disk = box / "box.img"
    size = int(json.loads(output("qemu-img", "info", "--output=json", disk))["virtual-size"])
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": size // GIBIBYTE, "architecture": arch}
    pack(packed, metadata, {"box.img": disk})
    disk.unlink()


def pack_virtualbox(box: Path, arch: str, packed: Path) -> None:
    """Pack the disk as a compressed vmdk with a description of the machine (OVF)."""
    with tempfile.TemporaryDirectory(dir=box, prefix=".packing-") as scratch:
        with tarfile.open(box / file_name(arch, "libvirt")) as archive:
            archive.extract("box.img", scratch)
        qcow2, vmdk, ovf = (Path(scratch, name) for name in ("box.img", "box-disk001.vmdk", "box.ovf"))
        output("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", qcow2, vmdk)
        capacity = json.loads(output("qemu-img", "info", "--output=json", qcow2))["virtual-size"]
        described = string.Template((HERE / "box.ovf").read_text()).substitute(size=vmdk.stat().st_size, capacity=capacity)
        ovf.write_text(described)
        pack(packed, {"provider": "virtualbox", "architecture": arch}, {vmdk.name: vmdk, ovf.name: ovf})


def pack(packed: Path, metadata: dict[str, object], files: dict[str, Path]) -> None:
    """Write a box: its metadata, an empty Vagrantfile (the course's own one decides) and its files; whole, or not at all."""
    half = packed.with_suffix(".half")
    with tarfile.open(half, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, text in (("metadata.json", json.dumps(metadata)), ("Vagrantfile", "Vagrant.configure('2') { |config| }\n")):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
        for name, path in files.items():
            archive.add(path, name, filter=anonymous)
    half.rename(packed)


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Forget who built it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def replace(file: Path, content: bytes) -> None:
    """Write a file whole, or not at all."""
    half = file.with_suffix(".half")
    half.write_bytes(content)
    half.rename(file)


def output(*argv: object) -> str:
    """Run a command; where it fails say its last line and stop."""
    done = subprocess.run([os.fspath(word) if isinstance(word, Path) else str(word) for word in argv], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{argv[0]} failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return done.stdout


PACKERS = {"libvirt": pack_libvirt, "virtualbox": pack_virtualbox}

if __name__ == "__main__":
    main()
