"""Trusted keys as files, and what gpgv says of a signature."""

import re
from pathlib import Path

import pytest

from labkit.appc.keystore import Keystore, SignatureError, read_key
from labkit.appc.publishing import Signer
from labkit.errors import LabError


@pytest.fixture
def signed(tmp_path: Path, ann: Signer) -> tuple[Path, Path]:
    file, signature = tmp_path / "file", tmp_path / "file.asc"
    file.write_bytes(b"what Ann has signed\n")
    ann.sign(file, signature)
    return file, signature


@pytest.fixture
def keystore(tmp_path: Path) -> Keystore:
    return Keystore(tmp_path / "etc", tmp_path / "usr")


def test_a_key_is_kept_under_its_prefix_by_its_fingerprint(keystore: Keystore, ann: Signer, tmp_path: Path) -> None:
    key = read_key(ann.public())
    assert re.fullmatch("[0-9a-f]{40}", key.fingerprint)
    assert key.users == ("Ann <ann@example.com>",)
    assert key.spaced().replace(" ", "").lower() == key.fingerprint
    assert re.fullmatch("([0-9A-F]{4} ){5} ([0-9A-F]{4} ?){5}", key.spaced())
    assert keystore.trust(ann.public(), "example.com/web") == tmp_path / f"etc/trustedkeys/prefix.d/example.com/web/{key.fingerprint}"
    assert keystore.trust(ann.public()) == tmp_path / f"etc/trustedkeys/root.d/{key.fingerprint}"


def test_a_signature_counts_below_the_prefix_alone(keystore: Keystore, ann: Signer, signed: tuple[Path, Path]) -> None:
    keystore.trust(ann.public(), "example.com/web")
    for name in ("example.com/web", "example.com/web/server"):
        assert keystore.verify(name, *signed).users == ("Ann <ann@example.com>",)
    for name in ("example.com", "example.com/webs", "example.org/web"):
        with pytest.raises(SignatureError, match="unknown entity") as caught:
            keystore.verify(name, *signed)
        assert caught.value.remedy == f'rkt trust --prefix "{name}"'
    keystore.trust(ann.public())
    assert keystore.verify("example.org/web", *signed)


def test_a_file_that_was_changed_is_refused(keystore: Keystore, ann: Signer, signed: tuple[Path, Path]) -> None:
    keystore.trust(ann.public())
    signed[0].write_bytes(b"what Ann has not signed\n")
    with pytest.raises(SignatureError, match="invalid signature"):
        keystore.verify("example.com/web", *signed)


def test_the_signature_of_another_is_refused(keystore: Keystore, ann: Signer, eve: Signer, signed: tuple[Path, Path]) -> None:
    keystore.trust(ann.public())
    eve.sign(*signed)
    with pytest.raises(SignatureError, match="unknown entity") as caught:
        keystore.verify("example.com/web", *signed)
    assert "the signature is of key" in str(caught.value.cause)


def test_two_signatures_count_only_where_both_are_known(keystore: Keystore, ann: Signer, eve: Signer, signed: tuple[Path, Path]) -> None:
    keystore.trust(ann.public())
    first = signed[1].read_text()
    eve.sign(*signed)
    signed[1].write_text(signed[1].read_text() + first)
    with pytest.raises(SignatureError):
        keystore.verify("example.com/web", *signed)


def test_a_key_under_the_name_of_another_does_not_count(keystore: Keystore, ann: Signer, eve: Signer, signed: tuple[Path, Path]) -> None:
    keystore.trust(ann.public()).write_bytes(eve.public())
    eve.sign(*signed)
    with pytest.raises(SignatureError, match="unknown entity"):
        keystore.verify("example.com/web", *signed)


@pytest.mark.parametrize("text", ["", "nothing of a signature", "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"])
def test_what_is_no_signature_is_refused(keystore: Keystore, ann: Signer, signed: tuple[Path, Path], text: str) -> None:
    keystore.trust(ann.public())
    signed[1].write_text(text)
    with pytest.raises(SignatureError):
        keystore.verify("example.com/web", *signed)


def test_the_system_has_keys_too_and_an_empty_file_takes_one_away(tmp_path: Path, ann: Signer, signed: tuple[Path, Path]) -> None:
    Keystore(tmp_path / "usr").trust(ann.public(), "example.com")
    keystore = Keystore(tmp_path / "etc", tmp_path / "usr")
    fingerprint = keystore.verify("example.com/web", *signed).fingerprint
    (tmp_path / "etc/trustedkeys/prefix.d/example.com").mkdir(parents=True)
    (tmp_path / "etc/trustedkeys/prefix.d/example.com" / fingerprint).touch()
    with pytest.raises(SignatureError, match="unknown entity"):
        keystore.verify("example.com/web", *signed)


def test_what_is_not_one_public_key_is_not_trusted(keystore: Keystore, ann: Signer, eve: Signer) -> None:
    for data in (b"", b"no key", ann.public() + eve.public(), ann._gpg("--armor", "--export-secret-keys").stdout.encode()):
        with pytest.raises(LabError, match="public keys"):
            keystore.trust(data, "example.com")
    with pytest.raises(LabError, match="prefix"):
        keystore.trust(ann.public(), "../../etc")
    assert not keystore.local.exists()


def test_a_user_of_a_key_writes_no_control_characters() -> None:
    from labkit.appc.keystore import _text

    assert _text(r"a\x3ab\x1b[2J") == "a:b?[2J"
