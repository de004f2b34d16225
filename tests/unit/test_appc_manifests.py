"""Manifests of appc: what the specification allows is read and written as rkt does, what it forbids is refused with its field."""

import json
import random
import string
import time
from collections.abc import Callable
from typing import Any

import pytest

from labkit.appc.image_manifest import ImageManifest
from labkit.appc.isolator_values import quantity
from labkit.appc.pod_manifest import PodManifest
from labkit.appc.types import ImageID, ManifestError, ac_identifier, ac_name, date, semver, serialized, web_address


def image() -> dict[str, Any]:
    return {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": "example.com/web",
        "labels": [{"name": "version", "value": "1.0.0"}, {"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}],
        "app": {
            "exec": ["/bin/web", "-v"],
            "eventHandlers": [{"name": "pre-start", "exec": ["/bin/prepare"]}, {"name": "post-stop", "exec": ["/bin/tidy"]}],
            "user": "www",
            "group": "/srv",
            "supplementaryGIDs": [4, 0],
            "workingDirectory": "/srv",
            "environment": [{"name": "PORT", "value": "80"}, {"name": "EMPTY", "value": ""}],
            "mountPoints": [{"name": "data", "path": "/var/data"}, {"name": "etc", "path": "/etc/web", "readOnly": True}],
            "ports": [{"name": "http", "protocol": "tcp", "port": 80, "count": 1, "socketActivated": False}],
            "isolators": [
                {"name": "resource/memory", "value": {"limit": "1G"}},
                {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_KILL"]}},
            ],
            "userAnnotations": {"a b": "c"},
        },
        "annotations": [{"name": "created", "value": "2016-05-02T09:00:00.5+02:00"}, {"name": "homepage", "value": "https://example.com"}],
        "dependencies": [
            {"imageName": "example.com/base", "imageID": "sha512-0a", "labels": [{"name": "os", "value": "linux"}], "size": 7}
        ],
        "pathWhitelist": ["/bin/web"],
    }


def pod() -> dict[str, Any]:
    return {
        "acVersion": "0.8.11",
        "acKind": "PodManifest",
        "apps": [
            {
                "name": "web",
                "image": {"name": "example.com/web", "id": f"sha512-{'a' * 64}", "labels": [{"name": "version", "value": "1"}]},
                "app": {"exec": ["/bin/web"], "user": "0", "group": "0"},
                "readOnlyRootFS": True,
                "mounts": [
                    {"volume": "data", "path": "/var/data"},
                    {"volume": "own", "path": "/own", "appVolume": {"name": "own", "kind": "host", "source": "/srv"}},
                ],
                "annotations": [{"name": "a", "value": "b"}],
            },
            {"name": "side", "image": {"id": "sha512-bb"}},
        ],
        "volumes": [
            {"name": "data", "kind": "empty", "mode": "0700", "uid": 1, "gid": 0},
            {"name": "src", "kind": "host", "source": "/srv", "readOnly": True, "recursive": False},
        ],
        "isolators": [{"name": "example.com/unheard-of", "value": {"x": 1}}],
        "annotations": [{"name": "coreos.com/rkt/stage1/mutable", "value": "false"}],
        "ports": [
            {"name": "http", "hostPort": 8080, "hostIP": "127.0.0.1"},
            {"name": "x", "hostPort": 1, "podPort": image()["app"]["ports"][0]},
        ],
    }


def changed(document: dict[str, Any], way: str, value: object) -> dict[str, Any]:
    """Set a field of a document, as `app.ports[0].port`; `...` removes it."""
    *steps, last = [int(step) if step.isdigit() else step for step in way.replace("[", ".").replace("]", "").split(".")]
    place: Any = document
    for step in steps:
        place = place[step]
    if value is ...:
        del place[last]
    elif isinstance(last, int) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    return document


def test_a_manifest_with_every_field_comes_back_as_it_was_in_the_order_of_rkt() -> None:
    text = json.dumps(image())
    assert json.dumps(ImageManifest.parse(text.encode()).record()) == text
    assert ImageManifest.parse(image()).label("version") == "1.0.0"


def test_a_pod_with_every_field_comes_back_as_it_was() -> None:
    text = json.dumps(pod())
    assert json.dumps(PodManifest.parse(text.encode()).record()) == text


def test_what_is_left_out_gets_the_defaults_of_the_specification() -> None:
    small = {
        "acKind": "ImageManifest",
        "acVersion": "0.8.11",
        "name": "a",
        "app": {"user": "0", "group": "0", "ports": [{"name": "p", "protocol": "x", "port": 1}]},
    }
    app = ImageManifest.parse(small).app
    assert app is not None
    assert (app.exec, app.working_directory, app.ports[0].count, app.ports[0].socket_activated) == ((), "", 1, False)
    assert app.record()["exec"] is None
    volume = PodManifest.parse(changed(pod(), "volumes[0]", {"name": "data", "kind": "empty"})).volumes[0]
    assert (volume.mode, volume.uid, volume.gid) == ("0755", 0, 0)


def test_an_empty_list_of_a_pod_is_null_and_of_an_image_not_there() -> None:
    record = PodManifest(()).record()
    assert record == {
        "acVersion": "0.8.11",
        "acKind": "PodManifest",
        "apps": None,
        "volumes": None,
        "isolators": None,
        "annotations": None,
        "ports": None,
    }
    assert list(ImageManifest("a").record()) == ["acKind", "acVersion", "name"]


def test_a_document_is_written_with_no_character_that_html_takes_for_its_own() -> None:
    assert serialized({"a": "<b> & \u2028é"}) == '{"a":"\\u003cb\\u003e \\u0026 \\u2028é"}'
    assert serialized({"a": [1]}, indent="\t") == '{\n\t"a": [\n\t\t1\n\t]\n}'


def test_fields_that_nobody_knows_and_those_that_are_null_are_passed_over() -> None:
    given = changed(changed(image(), "unheard", [{}]), "app.isolators", None)
    parsed = ImageManifest.parse(given)
    assert parsed.app is not None
    assert parsed.app.isolators == ()


def test_large_and_small_letters_of_a_field_do_not_count_where_none_is_written_as_it_should_be() -> None:
    given = changed(changed(image(), "name", ...), "NAME", "example.com/other")
    assert ImageManifest.parse(given).name == "example.com/other"
    assert ImageManifest.parse(changed(image(), "Name", "example.com/other")).name == "example.com/web"


REFUSED = [
    ("acKind", ..., "acKind"),
    ("acKind", "PodManifest", "acKind"),
    ("acVersion", ..., "acVersion"),
    ("acVersion", "0.8", "acVersion"),
    ("acVersion", "0.0.0", "acVersion"),
    ("acVersion", 1, "acVersion"),
    ("name", ..., "name"),
    ("name", "", "name"),
    ("name", "Example.com", "name"),
    ("name", "example.com:v1", "name"),
    ("name", "a//b", "name"),
    ("name", "a\n", "name"),
    ("labels", {}, "labels"),
    ("labels[0].name", "name", "labels[0].name"),
    ("labels[1].name", "version", "labels[1].name"),
    ("labels[1].name", "Os", "labels[1].name"),
    ("labels[1].value", "plan9", "labels[1].value"),
    ("labels[2].value", "arm64", "labels[2].value"),
    ("labels[0].value", 1, "labels[0].value"),
    ("app", [], "app"),
    ("app.exec", "/bin/web", "app.exec"),
    ("app.exec[1]", None, "app.exec[1]"),
    ("app.exec[1]", "a\0b", "app.exec[1]"),
    ("app.user", ..., "app.user"),
    ("app.group", "", "app.group"),
    ("app.supplementaryGIDs[0]", -1, "app.supplementaryGIDs[0]"),
    ("app.workingDirectory", "srv", "app.workingDirectory"),
    ("app.environment[0].name", "A-B", "app.environment[0].name"),
    ("app.environment[0].name", "1A", "app.environment[0].name"),
    ("app.environment[1].name", "PORT", "app.environment[1].name"),
    ("app.eventHandlers[0].name", "pre-stop", "app.eventHandlers[0].name"),
    ("app.eventHandlers[1].name", "pre-start", "app.eventHandlers[1].name"),
    ("app.mountPoints[0].name", "Data", "app.mountPoints[0].name"),
    ("app.mountPoints[0].path", "", "app.mountPoints[0].path"),
    ("app.mountPoints[0].readOnly", "yes", "app.mountPoints[0].readOnly"),
    ("app.ports[0].port", 0, "app.ports[0].port"),
    ("app.ports[0].port", 65536, "app.ports[0].port"),
    ("app.ports[0].port", 80.0, "app.ports[0].port"),
    ("app.ports[0].port", True, "app.ports[0].port"),
    ("app.ports[0].port", "80", "app.ports[0].port"),
    ("app.ports[0].count", 65457, "app.ports[0].count"),
    ("app.ports[0].name", "a.b", "app.ports[0].name"),
    ("app.isolators[0].name", "resource/unheard", "app.isolators[0].name"),
    ("app.isolators[0].value", ..., "app.isolators[0].value"),
    ("app.isolators[0].value.limit", "1X", "app.isolators[0].value.limit"),
    ("app.isolators[0].value.default", True, "app.isolators[0].value.default"),
    ("app.isolators[0].name", "resource/block-iops", "app.isolators[0].value.default"),
    ("app.isolators[1].value.set", [], "app.isolators[1].value.set"),
    ("app.isolators[0]", {"name": "os/linux/capabilities-remove-set", "value": {"set": ["CAP_KILL"]}}, "app.isolators[1].name"),
    ("app.isolators[0]", {"name": "os/linux/no-new-privileges", "value": 1}, "app.isolators[0].value"),
    ("app.isolators[0]", {"name": "os/linux/cpu-shares", "value": 1}, "app.isolators[0].value"),
    ("app.isolators[0]", {"name": "os/linux/oom-score-adj", "value": 1001}, "app.isolators[0].value"),
    (
        "app.isolators[0]",
        {"name": "os/linux/seccomp-remove-set", "value": {"set": ["read"], "errno": "EWHAT"}},
        "app.isolators[0].value.errno",
    ),
    ("app.userAnnotations", {"a": 1}, "app.userAnnotations.a"),
    ("annotations[0].value", "2016-05-02 09:00:00Z", "annotations[0].value"),
    ("annotations[0].value", "2016-13-02T09:00:00Z", "annotations[0].value"),
    ("annotations[1].value", "ftp://example.com", "annotations[1].value"),
    ("annotations[1].name", "created", "annotations[1].value"),
    ("dependencies[0].imageName", ..., "dependencies[0].imageName"),
    ("dependencies[0].imageID", "sha256-0a", "dependencies[0].imageID"),
    ("dependencies[0].size", -1, "dependencies[0].size"),
    ("pathWhitelist[0]", 1, "pathWhitelist[0]"),
]


@pytest.mark.parametrize(("way", "value", "field"), REFUSED)
def test_a_rule_that_is_broken_is_refused_with_its_field(way: str, value: object, field: str) -> None:
    with pytest.raises(ManifestError) as caught:
        ImageManifest.parse(json.dumps(changed(image(), way, value)).encode())
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("way", "value", "field"),
    [
        ("acKind", "ImageManifest", "acKind"),
        ("apps[1].name", "web", "apps[1].name"),
        ("apps[1].name", "a/b", "apps[1].name"),
        ("apps[1].image", ..., "apps[1].image"),
        ("apps[1].image.id", ..., "apps[1].image.id"),
        ("apps[0].app.user", ..., "apps[0].app.user"),
        ("apps[0].app.isolators", [{"name": "example.com/unheard-of", "value": 1}], "apps[0].app.isolators[0].name"),
        ("apps[0].mounts[0].path", "", "apps[0].mounts[0].path"),
        ("apps[0].mounts[1].appVolume.source", ..., "apps[0].mounts[1].appVolume.source"),
        ("volumes[1].name", "data", "volumes[1].name"),
        ("volumes[1].source", "srv", "volumes[1].source"),
        ("volumes[1].kind", "tmpfs", "volumes[1].kind"),
        ("volumes[0].source", "/srv", "volumes[0].source"),
        ("volumes[0].mode", "rwx", "volumes[0].mode"),
        ("volumes[0].uid", -1, "volumes[0].uid"),
        ("ports[0].hostPort", 0, "ports[0].hostPort"),
        ("ports[0].hostIP", "localhost", "ports[0].hostIP"),
    ],
)
def test_a_rule_of_pods_that_is_broken_is_refused_with_its_field(way: str, value: object, field: str) -> None:
    with pytest.raises(ManifestError) as caught:
        PodManifest.parse(json.dumps(changed(pod(), way, value)).encode())
    assert caught.value.field == field


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff{}",
        b"[]",
        b"null",
        b'"a"',
        b'{"acKind": NaN}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b"9" * 5000,
    ],
)
def test_what_is_no_document_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        ImageManifest.parse(data)
    assert caught.value.field == "manifest"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (ac_identifier, ["a", "example.com/a~b/app_v1", "0"], ["", "-a", "a-", "a--b", "A", "a:b", "a b", "a\n", "é"]),
        (ac_name, ["a", "a-b-1"], ["", "a.b", "a/b", "a_b", "a--b", "-a", "a-"]),
        (semver, ["0.8.11", "1.0.0-rc.1+x.y"], ["", "1", "1.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "0.0.0"]),
        (
            date,
            ["2016-05-02T09:00:00Z", "2016-05-02T09:00:00.351729952-04:00"],
            ["", "2016-05-02", "2016-02-30T09:00:00Z", "2016-05-02t09:00:00z"],
        ),
        (web_address, ["http://a", "https://example.com/x?y"], ["", "a", "http:", "http://[", "file:///x", "javascript:x"]),
    ],
)
def test_a_type_takes_what_it_is_for_and_nothing_else(rule: Callable[[str, str], str], good: list[str], bad: list[str]) -> None:
    assert [rule(text, "f") for text in good] == good
    for text in bad:
        with pytest.raises(ManifestError):
            rule(text, "f")


def test_an_abbreviated_id_is_known_again() -> None:
    whole = ImageID.parse(f"sha512-{'ab' * 64}")
    assert whole.matches(ImageID.parse("sha512-abab"))
    assert not whole.matches(ImageID.parse("sha512-abb"))
    for text in ("sha512-", "sha256-ab", "sha512-AB", "sha512-xyz", f"sha512-{'a' * 129}"):
        with pytest.raises(ManifestError):
            ImageID.parse(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("500m", 0.5),
        ("1.5", 1.5),
        ("128Mi", 2**27),
        ("1G", 10**9),
        ("1Gi", 2**30),
        ("1e3", 1000),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("2E3", 2000),
        (".5", 0.5),
    ],
)
def test_a_quantity_is_an_exact_number(text: str, amount: float) -> None:
    assert quantity(text, "f") == amount


# Mutated documents: whatever a stranger writes is taken, or refused in one line.

WORDS = [
    "",
    "/",
    "a",
    "A",
    "a:b",
    "sha512-a",
    "\0",
    "\ud800",
    "é" * 300,
    "..",
    "0",
    "-1",
    "null",
    "name",
    "resource/cpu",
    "os/linux/seccomp-retain-set",
    "1Gi",
]
VALUES: list[Callable[[random.Random], object]] = [
    lambda any_of: any_of.choice(WORDS),
    lambda any_of: any_of.choice([0, 1, -1, 65535, 65536, 2**63, 10**400, 1.5, 1e308, True, False, None]),
    lambda _: [],
    lambda _: {},
    lambda _: [[[]]],
    lambda any_of: {"name": any_of.choice(WORDS), "value": any_of.choice(WORDS)},
]


def mutated(document: Any, any_of: random.Random) -> Any:
    """Change one place of a document."""
    if isinstance(document, dict | list) and document and any_of.random() < 0.8:
        keys: Any = list(document) if isinstance(document, dict) else range(len(document))
        key = any_of.choice(keys)
        if any_of.random() < 0.1:
            copied = dict(document) if isinstance(document, dict) else list(document)
            del copied[key]
            return copied
        if any_of.random() < 0.1 and isinstance(document, list):
            return [*document, document[key]]
        changed_one = mutated(document[key], any_of)
        return {**document, key: changed_one} if isinstance(document, dict) else [*document[:key], changed_one, *document[key + 1 :]]
    return any_of.choice(VALUES)(any_of)


def broken(text: bytes, any_of: random.Random) -> bytes:
    """Change a few bytes of a text."""
    made = bytearray(text)
    for _ in range(any_of.randint(1, 4)):
        place = any_of.randrange(len(made) + 1)
        made[place : place + any_of.randint(0, 3)] = any_of.choice(
            [b"", bytes([any_of.randrange(256)]), any_of.choice(string.printable).encode() * 2]
        )
    return bytes(made)


def test_ten_thousand_mutated_manifests_end_in_acceptance_or_in_one_line() -> None:
    any_of, began = random.Random(7), time.process_time()
    taken, refusals = 0, list[str]()
    for number in range(10_000):
        kind, original = ((ImageManifest, image), (PodManifest, pod))[number % 2]
        document: Any = original()
        for _ in range(any_of.randint(1, 3)):
            document = mutated(document, any_of)
        text = json.dumps(document).encode()
        data = broken(text, any_of) if number % 3 == 0 else text
        try:
            read = kind.parse(data)
        except ManifestError as error:
            refusals.append(str(error))
        else:
            taken += 1
            assert kind.parse(serialized(read.record()).encode()) == read
    assert taken > 300
    assert len(refusals) > 5000
    assert [text for text in refusals if "\n" in text or len(text) > 600] == []
    assert time.process_time() - began < 30
