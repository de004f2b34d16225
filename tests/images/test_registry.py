"""Speaking with registries: accounts, tokens, certificates, and those that do not keep to the rules."""

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from labkit.errors import LabError
from labkit.images.oci import Descriptor, digest_of
from labkit.images.registry import Registry, RegistryError, UnreachableError

BLOB = b"what a layer holds"
ACCOUNT = base64.b64encode(b"student:right").decode()


class Strange(BaseHTTPRequestHandler):
    """A registry that wants a token, and then answers as `answers` says."""

    answers: ClassVar[dict[str, tuple[int, dict[str, str], bytes]]] = {}
    asked: ClassVar[list[tuple[str, str]]] = []
    scheme = "Bearer"

    def do_GET(self) -> None:
        path, authorization = self.path, self.headers.get("Authorization", "")
        Strange.asked.append((path, authorization))
        realm = f"https://{self.headers['Host']}/token"
        if path.startswith("/token"):
            wrong = authorization not in ("", f"Basic {ACCOUNT}")
            self.answer(401 if wrong else 200, {}, json.dumps({"token": "anonymous" if not authorization else "students"}).encode())
        elif self.scheme == "Bearer" and not authorization.startswith("Bearer ") and not path.startswith("/elsewhere"):
            self.answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="lab",scope="repository:a/b:pull"'}, b"")
        elif self.scheme == "Basic" and authorization != f"Basic {ACCOUNT}":
            self.answer(401, {"WWW-Authenticate": 'Basic realm="lab"'}, b"")
        else:
            self.answer(*self.answers.get(path, (404, {}, b'{"errors":[{"message":"blob unknown","detail":"x"}]}')))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "ca.crt", directory / "key"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=lab"]
    subprocess.run([*argv, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def strange(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Strange)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setattr(Strange, "answers", {"/v2/": (200, {}, b"{}")})
    monkeypatch.setattr(Strange, "asked", [])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def blob(answer: bytes = BLOB, **headers: str) -> Descriptor:
    pointer = Descriptor("x", digest_of(BLOB), len(BLOB))
    Strange.answers[f"/v2/a/b/blobs/{pointer.digest}"] = (200, headers, answer)
    return pointer


def test_a_token_is_fetched_once_and_kept(strange: str, certificate: tuple[Path, Path]) -> None:
    registry = Registry(strange, ca_file=certificate[0])
    pointer = blob()
    for _ in range(2):
        assert registry.read("a/b", pointer) == BLOB
    paths = [path.partition("?")[0] for path, _ in Strange.asked]
    assert paths.count("/token") == 1
    assert Strange.asked[-1][1] == "Bearer anonymous"


def test_an_account_gets_a_token_of_its_own_and_a_wrong_password_is_one_line(strange: str, certificate: tuple[Path, Path]) -> None:
    Registry(strange, user="student", password="right", ca_file=certificate[0]).ping()
    assert Strange.asked[-1][1] == "Bearer students"
    with pytest.raises(RegistryError) as caught:
        Registry(strange, user="student", password="wrong", ca_file=certificate[0]).ping()
    assert caught.value.status == 401
    assert "cause: the account 'student' or its password is not accepted; remedy: docker login" in str(caught.value)


def test_basic_accounts_are_tried_once(strange: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Strange, "scheme", "Basic")
    Registry(strange, user="student", password="right", ca_file=certificate[0]).ping()
    with pytest.raises(RegistryError, match="is not accepted"):
        Registry(strange, user="student", password="wrong", ca_file=certificate[0]).ping()
    with pytest.raises(RegistryError, match="it wants an account"):
        Registry(strange, ca_file=certificate[0]).ping()
    assert len(Strange.asked) == 5


def test_a_certificate_of_nobody_is_refused(strange: str, tmp_path: Path) -> None:
    other = Path("/etc/ssl/certs/ca-certificates.crt")
    with pytest.raises(LabError, match=r"its certificate is not accepted; cause: .*; remedy: name the CA file"):
        Registry(strange, ca_file=other).ping()
    with pytest.raises(LabError, match="no certificates"):
        Registry(strange, ca_file=tmp_path / "none")


def test_an_account_is_not_shown_to_whom_a_blob_is_fetched_from(strange: str, certificate: tuple[Path, Path]) -> None:
    pointer = blob()
    here = f"/v2/a/b/blobs/{pointer.digest}"
    Strange.answers["/elsewhere"] = (200, {}, BLOB)
    Strange.answers[here] = (307, {"Location": f"https://{strange}/elsewhere"}, b"")
    assert Registry(strange, ca_file=certificate[0]).read("a/b", pointer) == BLOB
    assert Strange.asked[-1] == ("/elsewhere", "")


@pytest.mark.parametrize(
    ("answer", "headers", "said"),
    [
        (b"what a layer HOLDS", {}, "what came has the digest"),
        (BLOB + b"!", {}, "has more than its 18 bytes"),
        (BLOB[:-1], {}, "ended after 17 of 18 bytes"),
    ],
    ids=["other", "more", "less"],
)
def test_a_blob_that_is_not_what_its_digest_says_never_comes_whole(
    strange: str, certificate: tuple[Path, Path], answer: bytes, headers: dict[str, str], said: str
) -> None:
    pointer = blob(answer, **headers)
    came: list[bytes] = []
    with pytest.raises(LabError, match=said):
        came.extend(Registry(strange, ca_file=certificate[0]).blob("a/b", pointer))
    assert came == []


def test_a_connection_that_breaks_off_is_one_line(strange: str, certificate: tuple[Path, Path]) -> None:
    pointer = blob(BLOB[:4], **{"Content-Length": "18"})
    with pytest.raises(UnreachableError):
        Registry(strange, ca_file=certificate[0], timeout=1).read("a/b", pointer)


def test_refusals_keep_the_status_and_the_registrys_own_words(strange: str, certificate: tuple[Path, Path]) -> None:
    registry = Registry(strange, ca_file=certificate[0])
    with pytest.raises(RegistryError, match=r"404 .*; cause: blob unknown") as caught:
        registry.read("a/b", Descriptor("x", digest_of(b""), 0))
    assert caught.value.status == 404
    Strange.answers["/v2/a/b/tags/list?n=1000"] = (429, {}, b"")
    with pytest.raises(UnreachableError, match="429"):
        registry.tags("a/b")
    Strange.answers["/v2/a/b/tags/list?n=1000"] = (500, {}, b"<html>")
    with pytest.raises(RegistryError, match="500"):
        registry.tags("a/b")


def test_an_upload_that_is_sent_elsewhere_is_not_followed(strange: str, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(BLOB)
    Strange.answers["/v2/a/b/blobs/uploads/"] = (202, {"Location": "http://127.0.0.1:9/take"}, b"")
    with (tmp_path / "blob").open("rb") as content, pytest.raises(LabError, match="an upload goes to the registry that was named"):
        Registry(strange, ca_file=certificate[0]).put_blob("a/b", content, Descriptor("x", digest_of(BLOB), len(BLOB)))


@pytest.mark.parametrize("name", ["../_catalog", "UPPER", "a//b", "a?b", "a/../../token", ""])
def test_no_name_leads_to_another_address(strange: str, certificate: tuple[Path, Path], name: str) -> None:
    registry = Registry(strange, ca_file=certificate[0])
    with pytest.raises(LabError, match="is no name of a repository"):
        registry.tags(name)
    with pytest.raises(LabError, match="neither a tag nor a digest"):
        registry.manifest("a/b", f"../{name}")
    assert Strange.asked == []


def test_a_real_registry_keeps_what_it_is_given(lab: Registry, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(BLOB)
    pointer = Descriptor("application/octet-stream", digest_of(BLOB), len(BLOB))
    for repository, mount in (("one/a", ""), ("two/b", "one/a")):
        with (tmp_path / "blob").open("rb") as content:
            lab.put_blob(repository, content, pointer, mount=mount)
        assert lab.read(repository, pointer) == BLOB
    assert lab.catalog() == ["one/a", "two/b"]
    with pytest.raises(RegistryError, match="404"):
        lab.tags("nothing/here")
    (tmp_path / "blob").write_bytes(b"what a layer HOLDS")
    with (tmp_path / "blob").open("rb") as content, pytest.raises(RegistryError, match="400"):
        lab.put_blob("one/c", content, pointer)
