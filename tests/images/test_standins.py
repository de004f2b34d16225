"""Stand-ins: the same bytes each time, and open about what they are."""

from pathlib import Path

import pytest

from labkit.images import layer, standins
from labkit.images.layout import Layout
from labkit.images.recipes import RECIPES


@pytest.mark.parametrize("name", ["busybox", "hello-world"])
def test_built_twice_it_has_the_same_digest(name: str, tmp_path: Path) -> None:
    built = []
    for number in ("one", "two"):
        work = tmp_path / number / "work"
        work.mkdir(parents=True)
        built.append(standins.build(name, Layout.create(tmp_path / number / "layout"), work))
    assert built[0] == built[1]


@pytest.mark.parametrize("name", RECIPES)
def test_it_says_what_it_is_in_its_labels_and_in_os_release(name: str, kept: Path, tmp_path: Path) -> None:
    layout = Layout(kept / f"images/{name}-{standins.key(name)}")
    layout.verify()
    manifest = layout.manifest(layout.find(name))
    config = layout.config(manifest)
    assert config.execution.labels["io.labkit.stand-in"] == name
    assert config.execution.labels["org.opencontainers.image.title"] == f"stand-in of {name}"
    for each in manifest.layers:
        with layout.blob(each.digest).open("rb") as packed:
            layer.apply(packed, tmp_path)
    lines = (tmp_path / "etc/os-release").read_text().splitlines()
    assert f'LABKIT_STAND_IN="{name}"' in lines
    assert any(line.startswith('PRETTY_NAME="') and line.endswith(f'stand-in of {name}"') for line in lines)


def test_nginx_stands_on_the_layer_of_debian(kept: Path) -> None:
    layers = {}
    for name in ("debian", "nginx"):
        layout = Layout(kept / f"images/{name}-{standins.key(name)}")
        layers[name] = layout.manifest(layout.find(name)).layers
    assert len(layers["nginx"]) == 2
    assert layers["nginx"][0] == layers["debian"][0]
