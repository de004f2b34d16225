"""Discovery: an image's name, the pages that speak of it, and the URLs that they lead to."""

import random
from contextlib import suppress

import pytest

from labkit.appc.discovery import KEYS, AppName, DiscoveryError, Endpoint, Tag, endpoints, endpoints_of, keys, tags
from labkit.appc.options import insecure_options
from labkit.appc.web import Web, WebError, split
from labkit.errors import LabError

PAGE = b"""<!DOCTYPE html><html><head><title>x</title>
<META NAME="description" CONTENT="a page">
<meta name="ac-discovery" content="example.com https://example.com/images/{name}-{version}-{os}-{arch}.{ext}">
<meta name='ac-discovery-pubkeys' content='example.com   https://example.com/keys.gpg'>
<meta name="ac-discovery" content="example.com/only/prefix">
<meta name="ac-discovery" content="other.org https://other.org/{name}.{ext}">
</head><body>"""


class Pages:
    """A web of some pages that keeps what it was asked for."""

    def __init__(self, pages: dict[str, bytes], *schemes: str) -> None:
        self.pages, self.schemes, self.asked = pages, schemes or ("https",), []

    def page(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.pages:
            raise WebError("bad HTTP status code: 404", 404)
        return self.pages[url]


class Silence(Pages):
    def page(self, url: str) -> bytes:
        self.asked.append(url)
        raise WebError("example.com cannot be reached", cause="connection refused")


def test_a_name_has_a_version_behind_a_colon_and_labels_behind_commas() -> None:
    assert AppName.parse("coreos.com/etcd") == AppName("coreos.com/etcd")
    assert AppName.parse("coreos.com/etcd:v3.1.7") == AppName("coreos.com/etcd", (("version", "v3.1.7"),))
    typed = AppName.parse("coreos.com/etcd:v3.1.7,os=linux,arch=amd64")
    assert typed.labels == (("version", "v3.1.7"), ("os", "linux"), ("arch", "amd64"))
    assert str(typed) == "coreos.com/etcd:v3.1.7,os=linux,arch=amd64"
    assert AppName.parse("coreos.com/etcd,version=v3.1.7").label("version") == "v3.1.7"


@pytest.mark.parametrize(
    "text", ["", "Coreos.com/etcd", "coreos.com/etcd:", "coreos.com/etcd:1,version=2", "a,b", "a,b=", "a,=b", "a/../b", "a b"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(LabError):
        AppName.parse(text)


def test_what_was_not_typed_is_this_machine_and_the_latest_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert AppName.parse("a.b/c").complete() == {"version": "latest", "os": "linux", "arch": "amd64"}
    assert AppName.parse("a.b/c:1,arch=s390x").complete() == {"version": "1", "os": "linux", "arch": "s390x"}
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert AppName.parse("a.b/c").complete()["arch"] == "aarch64"


def test_a_page_is_read_however_its_tags_are_written() -> None:
    assert [(each.kind, each.prefix) for each in tags(PAGE)] == [
        ("ac-discovery", "example.com"),
        ("ac-discovery-pubkeys", "example.com"),
        ("ac-discovery", "other.org"),
    ]
    assert tags(b"\xff\xfe<<<meta name=ac-discovery>") == ()


def test_a_prefix_ends_at_a_slash() -> None:
    tag = Tag("ac-discovery", "example.com/foo", "")
    assert tag.speaks_of("example.com/foo")
    assert tag.speaks_of("example.com/foo/bar")
    assert not tag.speaks_of("example.com/foobar")


def test_the_labels_fill_the_template() -> None:
    web = Pages({"https://example.com/web?ac-discovery=1": PAGE})
    found = endpoints(AppName.parse("example.com/web:1.0+b,os=linux,arch=amd64"), web)
    base = "https://example.com/images/example.com/web-1.0%2Bb-linux-amd64"
    assert found == (Endpoint(f"{base}.aci", f"{base}.aci.asc"),)


def test_a_template_that_asks_for_what_nobody_gave_leads_nowhere() -> None:
    tag = Tag("ac-discovery", "example.com", "https://example.com/{name}-{flavour}.{ext}")
    assert endpoints_of(AppName.parse("example.com/web"), [tag]) == ()
    (found,) = endpoints_of(AppName.parse("example.com/web,flavour=dark"), [tag])
    assert found.aci == "https://example.com/example.com/web-dark.aci"


def test_where_a_page_is_missing_the_path_above_is_asked() -> None:
    web = Pages({"https://example.com?ac-discovery=1": PAGE, "https://example.com/a?ac-discovery=1": b"<p>nothing"})
    endpoints(AppName.parse("example.com/a/b"), web)
    assert web.asked == [
        "https://example.com/a/b?ac-discovery=1",
        "https://example.com/a?ac-discovery=1",
        "https://example.com?ac-discovery=1",
    ]
    assert keys("example.com/a", web) == ("https://example.com/keys.gpg",)


def test_a_page_of_another_name_says_nothing() -> None:
    with pytest.raises(DiscoveryError, match="discovery failed") as caught:
        endpoints(
            AppName.parse("example.com/web"),
            Pages({"https://example.com/web?ac-discovery=1": PAGE.replace(b"example.com", b"example.org")}),
        )
    assert "no page of example.com/web" in str(caught.value.cause)
    with pytest.raises(DiscoveryError):
        keys("other.org/web", Pages({"https://other.org/web?ac-discovery=1": PAGE}))
    assert KEYS == "ac-discovery-pubkeys"


def test_a_host_that_does_not_answer_is_not_asked_again() -> None:
    web = Silence({})
    with pytest.raises(DiscoveryError, match="discovery failed") as caught:
        endpoints(AppName.parse("example.com/a/b"), web)
    assert len(web.asked) == 1
    assert "connection refused" in str(caught.value.cause)
    assert "--insecure-options=http" in str(caught.value.remedy)


def test_http_is_tried_after_https_where_it_may_be() -> None:
    web = Pages({"http://example.com/web?ac-discovery=1": PAGE}, "https", "http")
    assert endpoints(AppName.parse("example.com/web"), web)
    assert web.asked == ["https://example.com/web?ac-discovery=1", "http://example.com/web?ac-discovery=1"]


def test_insecure_options_are_words_joined_by_commas() -> None:
    assert insecure_options(["image,tls", "http"]) == {"image", "tls", "http"}
    assert insecure_options(["none"]) == frozenset()
    assert {"image", "tls", "http", "pubkey"} == insecure_options(["all-fetch"])
    assert "seccomp" in insecure_options(["all"])
    with pytest.raises(LabError, match="invalid argument"):
        insecure_options(["imagine"])


def test_a_mutated_page_gives_tags_or_none_and_a_url_of_them_is_one_or_refused() -> None:
    chance = random.Random(7)
    pieces = [b"<![", b"<!--", b"<meta ", b"'", b'"', b"{", b"}", b"https://[", b"&#x0;", b"\xff", b">", b"content="]
    for _ in range(3000):
        page = bytearray(PAGE)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(page))
            page[place : place + chance.randint(0, 20)] = chance.choice(pieces)
        for each in endpoints_of(AppName.parse("example.com/web"), tags(bytes(page))):
            with suppress(WebError):
                split(each.aci)


@pytest.mark.parametrize(
    "url", ["https://[/a", "ftp://example.com/a", "a", "https://example.com/\x00", "https://exa mple.com/", "https://\u00e9.\udcff/"]
)
def test_what_is_no_url_of_the_web_is_refused_in_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(WebError):
        Web(timeout=5).page(url)
