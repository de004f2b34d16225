"""Keys that are trusted for the images of a prefix, as files; and a signature checked against those that count for a name.

`trustedkeys/prefix.d/coreos.com/etcd/FINGERPRINT` counts for `coreos.com/etcd` and what lies below it, one in `root.d` for every name.
An empty file takes away the key of the same fingerprint that the system's directory has. See: gpg(1), gpgv(1)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from labkit.appc.types import ac_identifier
from labkit.errors import LabError
from labkit.kernel import commands

_FINGERPRINT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_UNKNOWN = "openpgp: signature made by unknown entity"


class SignatureError(LabError):
    """Say that nobody who is trusted has signed these bytes."""


@dataclass(frozen=True)
class Key:
    """A public key.

    Attributes:
        fingerprint: in lower case.
        users: whose it says it is.
    """

    fingerprint: str
    users: tuple[str, ...]

    def spaced(self) -> str:
        """Return the fingerprint as it is read aloud: ten groups, a gap in their middle."""
        groups = re.findall(".{1,4}", self.fingerprint.upper())
        half = len(groups) // 2
        return f"{' '.join(groups[:half])}  {' '.join(groups[half:])}"


def read_key(data: bytes) -> Key:
    """Read a file with one public key, armored or not.

    Shell:
        gpg --show-keys --with-colons FILE

    Raises:
        LabError: it has none, or several.
    """
    with _gpg() as home:
        file = home / "key"
        file.write_bytes(data)
        shown = commands.run(["gpg", "--homedir", home, "--batch", "--show-keys", "--with-colons", file], check=False, timeout=60)
    rows = [line.split(":") for line in shown.stdout.splitlines()]
    if sum(row[0] == "pub" for row in rows) != 1 or any(row[0] == "sec" for row in rows):
        raise LabError(f"{sum(row[0] == 'pub' for row in rows)} public keys", cause="a trusted key is a file with one public key")
    fingerprint = next(row[9] for row in rows if row[0] == "fpr").lower()
    return Key(fingerprint, tuple(_text(row[9]) for row in rows if row[0] == "uid"))


class Keystore:
    """The trusted keys of this machine.

    Args:
        local: the local configuration (/etc/rkt); what is trusted goes there.
        system: the configuration of who built the system (/usr/lib/rkt).
    """

    def __init__(self, local: Path, system: Path | None = None) -> None:
        self.local = local / "trustedkeys"
        self._places = (*((system / "trustedkeys",) if system else ()), self.local)

    def trust(self, data: bytes, prefix: str = "") -> Path:
        """Trust a key for the names below a prefix; "" trusts it for every name. Return its file.

        Raises:
            LabError: it is no public key, or the prefix no identifier of appc.
        """
        key = read_key(data)
        directory = self.local / _below(ac_identifier(prefix, "prefix") if prefix else "")
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / f".{key.fingerprint}.partial"
        partial.write_bytes(data)
        os.replace(partial, directory / key.fingerprint)
        return directory / key.fingerprint

    def keys(self, name: str) -> tuple[Path, ...]:
        """Return the files of the keys that count for an image's name."""
        parts = ac_identifier(name, "image name").split("/")
        prefixes = ["", *("/".join(parts[:length]) for length in range(1, len(parts) + 1))]
        return tuple(file for prefix in prefixes for file in self._of(prefix))

    def _of(self, prefix: str) -> list[Path]:
        """Return the keys of one prefix: those of the local configuration before those of the system's of the same name."""
        found: dict[str, Path] = {}
        for place in self._places:
            directory = place / _below(prefix)
            names = sorted(os.listdir(directory)) if directory.is_dir() else []
            found |= {name: directory / name for name in names if _FINGERPRINT.fullmatch(name)}
        return [file for file in found.values() if file.is_file() and file.stat().st_size]

    def verify(self, name: str, file: Path, signature: Path) -> Key:
        """Check that one of the keys that count for a name has signed a file; return it.

        Shell:
            gpgv --keyring KEYS SIGNATURE FILE

        Raises:
            SignatureError: nobody trusted has; the file or the signature was changed; the key is out of date.
        """
        trusted = self.keys(name)
        remedy = f'rkt trust --prefix "{name}"'
        if not trusted:
            raise SignatureError(_UNKNOWN, cause=f"no key is trusted for {name}", remedy=remedy)
        with _gpg() as home:
            ring = home / "ring.gpg"
            own: list[str | Path] = ["gpg", "--homedir", home, "--batch", "--quiet", "--no-default-keyring", "--keyring", ring]
            commands.run([*own, "--import", *trusted], check=False, timeout=60)
            checked: list[str | Path] = ["gpgv", "--homedir", home, "--keyring", ring, "--status-fd", "1"]
            checked += [signature.absolute(), file.absolute()]
            told = commands.run(checked, check=False, timeout=600)
        return _judged(told, {each.name for each in trusted}, remedy)


def _judged(told: commands.Completed, trusted: set[str], remedy: str) -> Key:
    """Read gpgv's status lines; the key must be one whose fingerprint is the name of a trusted file."""
    rows = [line.split() for line in told.stdout.splitlines() if line.startswith("[GNUPG:]")]
    status = {row[1]: row[2:] for row in rows if len(row) > 1}
    if told.status == 0 and "GOODSIG" in status and "VALIDSIG" in status:
        fingerprint = status["VALIDSIG"][-1].lower()  # of the primary key, whichever of its subkeys signed
        if fingerprint in trusted:
            return Key(fingerprint, (" ".join(status["GOODSIG"][1:]),))
    if "BADSIG" in status:
        raise SignatureError("openpgp: invalid signature: hash tag doesn't match", cause="the file is not the one that was signed")
    if "ERRSIG" in status or "NO_PUBKEY" in status or "VALIDSIG" in status:
        signer = (status.get("NO_PUBKEY") or status.get("ERRSIG") or status["VALIDSIG"])[0]
        why = f"the signature is of key {signer}" + (", which is out of date" if {"EXPKEYSIG", "REVKEYSIG", "EXPSIG"} & set(status) else "")
        raise SignatureError(_UNKNOWN, cause=why, remedy=remedy)
    last = told.stderr.strip().splitlines()[-1:] or ["gpgv found none"]
    raise SignatureError("openpgp: no signature", cause=last[0].removeprefix("gpgv: "))


def _below(prefix: str) -> Path:
    return Path("prefix.d", prefix) if prefix else Path("root.d")


def _text(field: str) -> str:
    """Undo the quoting of gpg's colon lists, and let no control character through to a terminal."""
    plain = re.sub(r"\\x([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), field)
    return "".join(each if each.isprintable() else "?" for each in plain)


@contextmanager
def _gpg() -> Iterator[Path]:
    """Make a home for gpg in which there is nothing of the user's, and take it away."""
    with TemporaryDirectory(prefix="rkt-gpg-") as home:
        yield Path(home)
