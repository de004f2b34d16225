"""The two ACIs of the course: its etcd, made of Debian's, and the shell of quay.io, made of Debian's busybox; both say what they are.

They are made at set-up, signed by a key that is forgotten then, and kept as the files of three hosts, which `labkit.appc.sites` serves.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from labkit import ledger
from labkit.appc import aci, publishing
from labkit.appc.docker import ARCHITECTURES
from labkit.appc.fetch import STAND_IN
from labkit.appc.image_manifest import App, ImageManifest, MountPoint, Port
from labkit.appc.publishing import Publication, Signer
from labkit.images import debian, recipes
from labkit.images.debian import EPOCH, RELEASE, Bench, architecture
from labkit.images.recipes import RECIPES
from labkit.kernel import commands

SIGNER = "labkit course images <course-images@labkit.invalid>"
_PATH = ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
_ETCD_LIBRARIES = ("libc.so.6", "libresolv.so.2", "libpthread.so.0", "libnss_files.so.2", "libnss_dns.so.2")


@dataclass(frozen=True)
class CourseImage:
    """One ACI of the course.

    Attributes:
        name: of its manifest.
        version: the label, as the course asks for it.
        title: what it really is, `{}` for the version of the program.
        app: how it is run.
        fill: puts its files into an empty tree and returns the version of the program in it.
        publication: how discovery leads to it.
    """

    name: str
    version: str
    title: str
    app: App
    fill: Callable[[Bench, Path], str]
    publication: Publication

    def manifest(self, found: str) -> ImageManifest:
        """Return its manifest.

        Args:
            found: the version of the program that is really in it.
        """
        machine = architecture()
        created = datetime.fromtimestamp(EPOCH, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return ImageManifest(
            name=self.name,
            labels=(("version", self.version), ("os", "linux"), ("arch", ARCHITECTURES.get(machine, machine))),
            app=self.app,
            annotations=(
                ("created", created),
                (STAND_IN, f"{self.name}:{self.version}"),
                (f"{STAND_IN}.is", self.title.format(found)),
                (f"{STAND_IN}.version", found),
            ),
        )


def _etcd(bench: Bench, tree: Path) -> str:
    """Put etcd and etcdctl where the release of upstream had them, with the libraries that Debian's need."""
    made = bench.debian("extract", ("etcd-server", "etcd-client"))
    for program in ("etcd", "etcdctl"):
        shutil.copy(made / "usr/bin" / program, tree / program)
    for file in sorted((made / "usr").glob("lib*/**/*")):
        if file.name in _ETCD_LIBRARIES or file.name.startswith("ld-linux"):
            place = tree / file.relative_to(made)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place, follow_symlinks=not file.is_symlink())
    for link in ("lib", "lib64"):
        (tree / link).symlink_to(f"usr/{link}")
    for directory, mode in (("data-dir", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
        (tree / directory).mkdir()
        (tree / directory).chmod(mode)
    (tree / "etc/passwd").write_text("root:x:0:0:root:/:/etcd\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    told = commands.run(["chroot", tree, "/etcd", "--version"], timeout=60).stdout
    return told.split()[2]  # "etcd Version: 3.5.16"


def _alpine_sh(bench: Bench, tree: Path) -> str:
    RECIPES["alpine"].fill(bench, tree)
    found = re.search(r"BusyBox ([\w.:+~-]+)", (tree / "etc/os-release").read_text())
    return found[1] if found else "unknown"


COURSE = (
    CourseImage(
        "coreos.com/etcd",
        "v3.1.7",
        f"etcd {{}} of {RELEASE}",
        App(
            exec=("/etcd",),
            user="0",
            group="0",
            environment=(_PATH, ("ETCD_DATA_DIR", "/data-dir")),
            mount_points=(MountPoint("data-dir", "/data-dir"),),
            ports=(Port("client", "tcp", 2379), Port("peer", "tcp", 2380)),
        ),
        _etcd,
        Publication(
            "coreos.com/etcd",
            "https://github.com/coreos/etcd/releases/download/{version}/etcd-{version}-{os}-{arch}.{ext}",
            "https://coreos.com/dist/pubkeys/aci-pubkeys.gpg",
        ),
    ),
    CourseImage(
        "quay.io/coreos/alpine-sh",
        "latest",
        f"BusyBox {{}} of {RELEASE}, without apk",
        App(exec=("/bin/sh",), user="0", group="0", working_directory="/", environment=(_PATH,)),
        _alpine_sh,
        Publication(
            "quay.io",
            "https://quay.io/c1/aci/{name}/{version}/{ext}/{os}/{arch}",
            "https://quay.io/aci-signing-key",
        ),
    ),
)


def sites() -> Path:
    """Return the directory with what the hosts of the course's ACIs have."""
    return _home() / "aci" / "sites"


def seed(*, refresh: bool = False, say: Callable[[str], object] = str) -> Path:
    """Let this machine have the course's ACIs; return `sites()`. What was built by the same code on this machine stays.

    Args:
        refresh: build them again.
        say: told each image that is built.

    Raises:
        LabError: Debian's mirror cannot be reached, the disk is full.
    """
    place, partial = _home() / "aci", _home() / "aci.partial"
    place.parent.mkdir(parents=True, exist_ok=True)
    with (_home() / "aci.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if refresh or not _is_current(place):
            shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
            _build(partial, say)
            (partial / "key").write_text(key())
            shutil.rmtree(place, ignore_errors=True)
            partial.rename(place)
    return sites()


def key() -> str:
    """Return by what built ACIs are known: it changes whenever the code that makes them, or the machine, does."""
    modules = (__file__, *(str(each.__file__) for each in (aci, publishing, debian, recipes)))
    sources = b"".join(Path(module).read_bytes() for module in modules)
    return hashlib.sha256(architecture().encode() + b"\0" + sources).hexdigest()[:16]


def _is_current(place: Path) -> bool:
    with suppress(OSError):
        return (place / "key").read_text() == key()
    return False


def _build(place: Path, say: Callable[[str], object]) -> None:
    with publishing.signer(SIGNER) as signer:
        for each in COURSE:
            say(f"{each.name}:{each.version}: building it of {RELEASE}")
            work = place / "work"
            work.mkdir(parents=True)
            _one(each, work, place / "sites", signer)
            shutil.rmtree(work)


def _one(image: CourseImage, work: Path, sites: Path, signer: Signer) -> None:
    tree, file = work / "tree", work / "image.aci"
    tree.mkdir(mode=0o755)
    found = image.fill(Bench(work, architecture()), tree)
    aci.build(image.manifest(found), tree, file, compression="gzip")
    publishing.publish(sites, image.publication, file, signer)


def _home() -> Path:
    return ledger.state() / "images"


def main() -> None:
    """Build what is not there, and say where it is."""
    place = seed(say=lambda line: sys.stdout.write(f"{line}\n"))
    sys.stdout.write(f"{place}\n")


if __name__ == "__main__":
    main()
