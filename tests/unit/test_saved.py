"""A saved image: what each instruction added, changed and removed, in the archives of old and new Docker and in an OCI layout."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from labkit import show
from labkit.errors import LabError
from labkit.images import saved
from labkit.images.layout import Layout
from labkit.images.oci import CONFIG, LAYER, Descriptor, Manifest

Entry = tuple[str, bytes | None]
"""A path and its content; None makes a directory."""

LAYERS: list[list[Entry]] = [
    [("etc", None), ("etc/motd", b"old"), ("etc/gone", b"x"), ("d", None), ("d/one", b"1"), ("d/sub", None), ("d/sub/two", b"2")],
    [("etc/", None), ("etc/motd", b"newer"), ("etc/.wh.gone", b""), ("new", b"12345")],
    [("d", None), ("d/.wh..wh..opq", b""), ("d/one", b"1")],
    [(".wh.d", b"")],
]
HISTORY = [
    {"created_by": "base"},
    {"created_by": '/bin/sh -c #(nop)  CMD ["sh"]', "empty_layer": True},
    {"created_by": "/bin/sh -c #(nop)  ONBUILD RUN true", "empty_layer": True},
    {"created_by": "/bin/sh -c change"},
    {"created_by": "/bin/sh -c opaque"},
    {"created_by": "/bin/sh -c rm -r d"},
]


def tar(entries: list[Entry]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def configuration() -> bytes:
    record = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": None, "Healthcheck": {"Test": ["CMD-SHELL", "true"]}},
        "rootfs": {"type": "layers", "diff_ids": [digest(tar(each)) for each in LAYERS]},
        "history": HISTORY,
    }
    return json.dumps(record).encode()


def docker_20(place: Path) -> Path:
    names = [f"{number:064x}/layer.tar" for number in range(len(LAYERS))]
    told = [{"Config": "config.json", "RepoTags": ["a:b"], "Layers": names}]
    with tarfile.open(place / "image.tar", "w") as archive:
        for name, data in {**{name: tar(each) for name, each in zip(names, LAYERS, strict=True)}, "config.json": configuration()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        member = tarfile.TarInfo("manifest.json")
        member.size = len(json.dumps(told))
        archive.addfile(member, io.BytesIO(json.dumps(told).encode()))
    return place / "image.tar"


def layout(place: Path) -> Path:
    made = Layout.create(place / "layout")
    layers = tuple(made.add(tar(each), LAYER) for each in LAYERS)
    manifest = Manifest(made.add(configuration(), CONFIG), layers)
    made.tag(made.add(manifest.serialize(), manifest.media_type), "a")
    assert isinstance(layers[0], Descriptor)
    return made.path


@pytest.mark.parametrize("form", [docker_20, layout])
def test_each_layer_says_what_it_adds_changes_and_removes(form, tmp_path: Path) -> None:
    image = saved.read(form(tmp_path))
    assert [step.instruction for step in image.steps] == ["base", 'CMD ["sh"]', "RUN change", "RUN opaque", "RUN rm -r d"]
    base, cmd, change, opaque, remove = image.steps
    assert base.added == ("d", "d/one", "d/sub", "d/sub/two", "etc", "etc/gone", "etc/motd")
    assert (base.changed, base.removed, base.size) == ((), (), 6)
    assert cmd == saved.Step('CMD ["sh"]')
    assert (change.added, change.changed, change.removed, change.size) == (("new",), ("etc/motd",), ("etc/gone",), 10)
    assert (opaque.added, opaque.changed, opaque.removed) == ((), ("d/one",), ("d/sub",))
    assert (remove.added, remove.removed) == ((), ("d",))
    assert image.layers == (base, change, opaque, remove)
    assert image.settings["Healthcheck"] == {"Test": ["CMD-SHELL", "true"]}


@pytest.mark.parametrize("form", [docker_20, layout])
def test_a_file_is_that_of_the_topmost_layer_that_has_it(form, tmp_path: Path) -> None:
    place = form(tmp_path)
    assert saved.file(place, "etc/motd") == b"newer"
    assert saved.file(place, "etc/gone") is None
    assert saved.file(place, "d/one") is None


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_bytes(b"no tar")
    (tmp_path / "empty.tar").write_bytes(tar([("x", b"")]))
    for name in ("no.tar", "empty.tar", "absent"):
        with pytest.raises(LabError, match="no saved image"):
            saved.read(tmp_path / name)


def test_the_view_names_the_instruction_the_size_and_the_paths(tmp_path: Path) -> None:
    image = saved.read(docker_20(tmp_path))
    other = saved.Saved({"Cmd": ["sh"]}, (*image.steps[:2], saved.Step("RUN other", "sha256:other"), image.steps[3]))
    view = show.layers_view("a:b", image, {"b:c": other})
    assert view.text.splitlines() == [
        "a:b: 5 instructions, 4 layers",
        "=         2 instructions, 1 layer, those of b:c",
        "layer 2   RUN change",
        "          10 B, a new layer",
        "          + new",
        "          ~ etc/motd",
        "          - etc/gone",
        "layer 3   RUN opaque",
        "          1 B, the same layer as in b:c",
        "          ~ d/one",
        "          - d/sub",
        "layer 4   RUN rm -r d",
        "          0 B, a new layer",
        "          - d",
    ]
    assert show.layers_view("a:b", image).text.splitlines()[1:5] == [
        "layer 1   base",
        "          6 B",
        "          + d d/one d/sub d/sub/two etc etc/gone etc/motd",
        '-         CMD ["sh"]',
    ]
    assert show.layers_view("a:b", image, {"a:c": image}).text.splitlines()[1:] == ["=         5 instructions, 4 layers, those of a:c"]


def test_the_settings_are_those_that_an_image_below_does_not_have() -> None:
    settings = {"Cmd": ["sh"], "Env": ["PATH=/bin", "A=b"], "Labels": {"x": "1", "y": "2"}, "Image": "sha256:...", "User": ""}
    below = {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"x": "1"}}
    lines = show.settings_view("a:b", settings, below).text.splitlines()
    assert [line.split() for line in lines[3:]] == [["Env", "['A=b']"], ["Labels", "y=2"]]
    assert len(show.settings_view("a:b", settings, {}).text.splitlines()) == 6


def test_a_file_is_shown_with_its_indentation() -> None:
    view = show.file_view("f", "for x in 1\n    echo $x\n" + "a " * 60)
    assert view.text.splitlines()[:3] == ["f", "  for x in 1", "      echo $x"]
    assert max(map(len, view.text.splitlines())) <= 80
