"""The registry with accounts: its certificate authority, its certificate for localhost, and the account of the student."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from labkit.host.services import files
from labkit.kernel import commands

USER = "student"
DAYS = "3650"
_EXTENSIONS = """\
subjectAltName=DNS:localhost,IP:127.0.0.1
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


def make(directory: Path, owner: tuple[int, int]) -> bool:
    """Make what is not there yet: ca.crt, server.crt and server.key, password and htpasswd; tell whether something was made.

    Shell:
        openssl req -x509 ... -out ca.crt; openssl x509 -req -CA ca.crt ... -out server.crt; htpasswd -Bin student

    Args:
        directory: where they are kept.
        owner: user and group that serve: theirs are the key and htpasswd. The password is root's alone.

    Raises:
        CommandError: openssl or htpasswd failed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    made = False
    if not (directory / "server.crt").exists():
        _certificates(directory, owner)
        made = True
    if not (directory / "htpasswd").exists():
        password = secrets.token_urlsafe(12)
        hashed = commands.run(["htpasswd", "-Bin", USER], input=password, timeout=30).stdout.strip()
        files.write(directory / "password", password + "\n", mode=0o600)
        files.write(directory / "htpasswd", hashed + "\n", mode=0o600, owner=owner)
        made = True
    return made


def _certificates(directory: Path, owner: tuple[int, int]) -> None:
    """Make the authority and the certificate in a directory beside it; server.crt, by which they are known, moves last."""
    fresh = directory / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    authority = ("-x509", "-days", DAYS, "-subj", "/CN=labkit registry with accounts")
    signs = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl(fresh, "req", *key, *authority, *signs, "-keyout", "ca.key", "-out", "ca.crt")
    _openssl(fresh, "req", *key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (fresh / "names").write_text(_EXTENSIONS)
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", DAYS, "-extfile", "names")
    _openssl(fresh, "x509", "-req", "-in", "server.csr", *signed, "-out", "server.crt")
    for name, mode in (("ca.key", 0o600), ("ca.crt", 0o644), ("server.key", 0o600), ("server.crt", 0o644)):
        (fresh / name).chmod(mode)
        if name.startswith("server"):
            os.chown(fresh / name, *owner)
        (fresh / name).replace(directory / name)
    shutil.rmtree(fresh)


def _openssl(directory: Path, *arguments: str) -> None:
    commands.run(["openssl", *arguments], cwd=directory, timeout=60)
