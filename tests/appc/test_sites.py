"""The hosts of the lab's ACIs: a proxy that connects to them alone, and TLS whose certificate is checked."""

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from appc_hosts import World, manifest, served

from labkit import ledger
from labkit.appc import sites
from labkit.appc.discovery import DiscoveryError, tags
from labkit.appc.publishing import Signer
from labkit.appc.web import Web, WebError


@pytest.fixture
def web(world: World) -> Web:
    return Web(say=world.said.append, timeout=10)


def test_a_page_and_a_file_come_through_tls(world: World, web: Web, tmp_path: Path) -> None:
    assert b'content="example.com/web https://files.example.com' in web.page("https://example.com/web?ac-discovery=1")
    got = web.download("https://files.example.com/example.com/web/1/linux/amd64/image.aci", tmp_path / "got")
    assert (tmp_path / "got").stat().st_size == got.size
    assert (tmp_path / "got").read_bytes() == (world.sites / "files.example.com/example.com/web/1/linux/amd64/image.aci").read_bytes()
    assert [line.split(" is asked")[0] for line in world.said] == ["image: example.com", "image: files.example.com"]


def test_what_we_have_is_not_sent_again(web: Web, tmp_path: Path) -> None:
    url = "https://files.example.com/example.com/web/1/linux/amd64/image.aci"
    first = web.download(url, tmp_path / "first")
    again = web.download(url, tmp_path / "again", etag=first.etag)
    assert again.unchanged
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("path", ["none", "../sites.key", "%2e%2e/sites.key", "..%2f..%2fsites.key", "web/%00", "", "web"])
def test_a_path_that_has_no_file_is_not_found(web: Web, path: str) -> None:
    with pytest.raises(WebError, match="bad HTTP status code: 404"):
        web.page(f"https://example.com/{path}")


def test_other_hosts_are_not_reached(web: Web) -> None:
    for host in ("example.org", "..", "example.com:80"):
        with pytest.raises(WebError, match="cannot be reached"):
            web.page(f"https://{host}/")


def test_a_proxy_that_is_not_the_host_is_found_out(world: World, web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert web.page("https://example.com/web?ac-discovery=1")  # it has loaded the certificates that count now
    sites.certify(["example.com"], tmp_path / "other.crt", tmp_path / "other.key")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.crt"))
    with pytest.raises(WebError, match="cannot be reached") as caught:
        Web(timeout=10).page("https://example.com/web?ac-discovery=1")
    assert "certificate is not accepted" in str(caught.value.cause)
    assert Web(unverified=True, timeout=10).page("https://example.com/web?ac-discovery=1")
    assert web.page("https://example.com/web?ac-discovery=1")  # the server is still there


def test_one_connection_carries_many_questions(world: World, tmp_path: Path) -> None:
    with served_again(world, tmp_path) as (host, port):
        context = ssl.create_default_context(cafile=tmp_path / "sites.crt")
        connection = http.client.HTTPSConnection(host, port, context=context, timeout=10)
        connection.set_tunnel("example.com", 443)
        for _ in range(3):
            connection.request("GET", "/web?ac-discovery=1")
            answer = connection.getresponse()
            assert answer.status == 200
            answer.read()
        connection.close()


@contextmanager
def served_again(world: World, tmp_path: Path) -> Iterator[tuple[str, int]]:
    with pytest.MonkeyPatch.context() as patch, served(tmp_path, patch) as server:
        host, port = server.address.split(":")
        yield host, int(port)


def test_http_is_refused_unless_it_may_be(web: Web) -> None:
    with pytest.raises(WebError, match="only https"):
        web.page("http://example.com/web")


def test_a_redirect_away_from_tls_is_refused(world: World, ann: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sends(sites._Handler):
        def do_GET(self) -> None:  # noqa: N802 - the word of http.server
            if self.path.startswith("/web"):
                super().do_GET()
                return
            self.send_response(302)
            self.send_header("Location", f"{self.path.strip('/')}://example.com/web?ac-discovery=1")
            self.send_header("Content-Length", "0")
            self.end_headers()

    monkeypatch.setattr(sites, "_Handler", Sends)
    with served_again(world, world.place) as (host, port):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{host}:{port}")
        assert Web(timeout=10).page("https://example.com/https")
        for scheme in ("http", "file", "ftp"):
            with pytest.raises(WebError, match=r"sends us to|status code: 302"):
                Web(timeout=10).page(f"https://example.com/{scheme}")


def test_over_http_too_where_that_may_be(world: World, ann: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "http://files.example.com/{name}/{version}/{os}/{arch}/image.{ext}"
    world.publish(manifest("example.com/plain"), ann, template=template)
    with served_again(world, world.place) as (host, port):
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("HTTP_PROXY", f"http://{host}:{port}")
        name = "example.com/plain:1,os=linux,arch=amd64"
        with pytest.raises(DiscoveryError, match="discovery failed") as caught:
            world.fetch(name, "image")
        assert "--insecure-options=http" in str(caught.value.remedy)
        assert world.fetch(name, "image", "http")


def test_the_page_of_a_host_speaks_of_all_its_images(world: World, ann: Signer) -> None:
    world.publish(manifest("example.com/other"), ann)
    world.publish(manifest("example.com/other"), ann)
    page = (world.sites / "example.com/ac-discovery.html").read_bytes()
    assert [each.prefix for each in tags(page)] == ["example.com/web"] * 2 + ["example.com/other"] * 2


def test_a_lab_has_its_hosts_until_it_is_closed(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    assert sites.environment(lab) == {}
    ledger.own("appc")
    try:
        sites.serve(lab, world.sites)
        found = sites.environment(lab)
        assert (lab / "sites.env").read_text() == "".join(f"export {name}={value}\n" for name, value in found.items())
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        assert Web(timeout=10).page("https://example.com/web?ac-discovery=1")
        assert (lab / "sites.log").read_text() == "GET example.com /web?ac-discovery=1 200\n"
    finally:
        ledger.undo()
        ledger.own("")
    with pytest.raises(WebError, match="cannot be reached"):
        Web(timeout=10).page("https://example.com/web?ac-discovery=1")
