"""The search over a registry, as docker's daemon and podman ask for it."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import LabError
from labkit.images import search
from labkit.images.catalogue import Image
from labkit.images.debian import architecture
from labkit.images.oci import CONFIG, MANIFEST, Descriptor, Execution, ImageConfig, Manifest, Platform, digest_of
from labkit.images.registry import Registry


@contextmanager
def listening(registry: Registry) -> Iterator[str]:
    with search.Server(registry) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://{server.address}"
        finally:
            server.shutdown()
            thread.join()


def asked(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def refused(url: str) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        asked(url)
    with caught.value as error:
        return error.code, json.load(error)["error"]


def put(registry: Registry, repository: str, tag: str, **labels: str) -> None:
    said = {name.replace("_", "."): value for name, value in labels.items()}
    data = ImageConfig(Platform(architecture(), "linux"), (), Execution(labels=said)).serialize()
    config = Descriptor(CONFIG, digest_of(data), len(data))
    registry.put_blob(repository, BytesIO(data), config)
    registry.put_manifest(repository, tag, Manifest(config, ()).serialize(), MANIFEST)


def test_it_finds_by_a_part_of_the_name_the_official_first(lab: Registry) -> None:
    put(lab, "library/nginx", "latest", org_opencontainers_image_description="a web server")
    put(lab, "library/alpine", "latest")
    put(lab, "bitnami/nginx", "1.0")
    with listening(lab) as index:
        found = asked(f"{index}/v1/search?q=nginx&n=25")
        few = asked(f"{index}/v1/search?q=nginx&n=1")
        nothing = asked(f"{index}/v1/search?q=ngnix")
    fixed = {"is_automated": False, "star_count": 0}
    official = {"name": "nginx", "description": "lab's registry: a web server", "is_official": True, **fixed}
    other = {"name": "bitnami/nginx", "description": "lab's registry: bitnami/nginx", "is_official": False, **fixed}
    assert found["results"] == [official, other]
    assert (found["query"], found["num_results"]) == ("nginx", 2)
    assert few["results"] == [official]
    assert (nothing["num_results"], nothing["results"]) == (0, [])


def test_library_is_no_part_of_a_name(lab: Registry) -> None:
    put(lab, "library/alpine", "latest")
    with listening(lab) as index:
        assert asked(f"{index}/v1/search?q=librar")["results"] == []


def test_an_image_for_many_platforms_without_a_label_is_described_by_the_catalogue(tiny: Image, upstream: Registry) -> None:
    with listening(upstream) as index:
        found = asked(f"{index}/v1/search?q=tiny")["results"]
    assert [(each["name"], each["description"]) for each in found] == [("tiny", f"lab's registry: {tiny.release}")]


def test_it_says_that_it_is_an_index_and_answers_nothing_else(lab: Registry) -> None:
    with listening(lab) as index:
        for path, header in (("/v1/_ping", "X-Docker-Registry-Standalone"), ("/v2/", "Docker-Distribution-API-Version")):
            with urllib.request.urlopen(f"{index}{path}", timeout=10) as answer:
                assert answer.status == 200
                assert answer.headers[header]
        assert refused(f"{index}/v2/_catalog")[0] == 404
        assert refused(f"{index}/v1/search?q=a&n=0")[0] == 400
        assert refused(f"{index}/v1/search?q=a&n=many")[0] == 400


def test_where_the_registry_is_down_it_says_so() -> None:
    with listening(Registry("127.0.0.1:9")) as index:
        status, why = refused(f"{index}/v1/search?q=nginx")
    assert status == 503
    assert "registry 127.0.0.1:9 cannot be reached; cause: connection refused" in why


def test_a_greeting_in_tls_does_not_end_it(lab: Registry) -> None:
    with listening(lab) as index:
        with pytest.raises(urllib.error.URLError):
            asked(index.replace("http:", "https:") + "/v1/_ping")
        assert asked(f"{index}/v1/_ping") is True


def test_one_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "__name__", "labkit.images.none")
    with pytest.raises(LabError, match="the lab's search ended with status 1") as caught:
        search.serve(tmp_path, "127.0.0.1:9")
    assert "No module named labkit.images.none" in caught.value.cause
