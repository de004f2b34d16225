"""An image of a docker registry becomes an ACI, and an ACI an OCI image: read, rendered, and run."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from appc_hosts import World, manifest

from labkit import ledger
from labkit.appc import aci
from labkit.appc.image_manifest import App, ImageManifest
from labkit.appc.to_oci import to_oci
from labkit.appc.types import ImageID
from labkit.errors import LabError
from labkit.host.services.places import Places
from labkit.images import elf, layer
from labkit.images.debian import architecture
from labkit.images.image import in_layout
from labkit.images.layout import Layout
from labkit.images.oci import CONFIG, LAYER_GZIP, MANIFEST, Execution, ImageConfig, Manifest, Platform
from labkit.images.registry import Registry
from labkit.images.serving import serving
from labkit.images.stack import unpack
from labkit.runtimes import bundle, podman_store

GREETING = "hello from below\n"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with serving(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def web(registry: Registry, tmp_path: Path) -> str:
    """The name of an image of two layers; the second takes a file away and changes another."""
    layout = Layout.create(tmp_path / "layout")
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for tree in (lower, upper):
        (tree / "etc").mkdir(parents=True)
        (tree / "hello").write_bytes(elf.program(GREETING, architecture()))
        (tree / "hello").chmod(0o755)
    (lower / "etc/old").write_text("old\n")
    (lower / "etc/both").write_text("lower\n")
    (upper / "etc/both").write_text("upper\n")
    paths, removed = layer.difference(lower, upper)
    first = layer.write(tmp_path / "1", lower, epoch=2**31)
    second = layer.write(tmp_path / "2", upper, epoch=2**31, paths=paths, removed=removed)
    config = ImageConfig(Platform(architecture(), "linux"), (first.diff_id, second.diff_id), Execution(entrypoint=("/hello",)))
    blobs = [layout.adopt(each.path, LAYER_GZIP, each.descriptor.digest) for each in (first, second)]
    whole = Manifest(layout.add(config.serialize(), CONFIG), tuple(blobs))
    for each in (whole.config, *blobs):
        with layout.blob(each.digest).open("rb") as content:
            registry.put_blob("library/web", content, each)
    registry.put_manifest("library/web", "1.0", whole.serialize(), MANIFEST)
    return f"{registry.host}/library/web:1.0"


def test_its_layers_are_one_root(world: World, web: str) -> None:
    key = world.fetch(f"docker://{web}", "image")
    name = web.replace(":", "_", 1)
    assert world.store.find(name) == key
    assert world.store.manifest(key).app == App(("/hello",), "0", "0", working_directory="/")
    root = world.store.rendered(key)
    assert sorted(os.listdir(root)) == ["etc", "hello"]
    assert os.listdir(root / "etc") == ["both"]
    assert (root / "etc/both").read_text() == "upper\n"
    world.said.clear()
    assert world.fetch(f"docker://{web}", "image") == key
    assert world.said == [f"image: using image from local store for image name {name}"]
    assert world.fetch(f"docker://{web}", "image", policy="update") == key


def test_an_image_that_is_not_there_is_refused(world: World, web: str) -> None:
    with pytest.raises(LabError, match="404"):
        world.fetch(f"docker://{web}.1", "image")
    assert world.store.images() == ()


def stored(world: World, found: ImageManifest) -> ImageID:
    root = world.place / "root"
    (root / "data").mkdir(parents=True)
    (root / "hello").write_bytes(elf.program(GREETING, architecture()))
    (root / "hello").chmod(0o755)
    aci.build(found, root, world.place / "hello.aci")
    return world.store.put(world.place / "hello.aci")


def test_an_aci_is_an_oci_image_that_is_whole(world: World, tmp_path: Path) -> None:
    key = stored(world, manifest("example.com/hello"))
    layout = Layout.create(tmp_path / "oci")
    done = to_oci(world.store, key, layout, "hello")
    layout.verify()
    image = in_layout(layout, "hello")
    assert image.manifest.digest == done.manifest.digest
    assert image.config.execution.entrypoint == ("/hello",)
    assert to_oci(world.store, key, layout, "hello") == done  # the same bytes, whenever it is written
    (tree,) = unpack(layout, image, directory(tmp_path / "trees"))
    assert {path.name: path.stat().st_mode for path in tree.iterdir()} == {
        path.name: path.stat().st_mode for path in world.store.rendered(key).iterdir()
    }


def directory(path: Path) -> Path:
    path.mkdir()
    return path


def by_runc(layout: Path, place: Path, _services: Places) -> str:
    image = in_layout(Layout(layout), "hello")
    (tree,) = unpack(Layout(layout), image, directory(place / "trees"))
    subprocess.run(["runc", "spec", "--bundle", place], check=True)
    config = bundle.read(place)
    execution = image.config.execution
    process = replace(config.process, args=(*execution.entrypoint, *execution.cmd), cwd=execution.working_dir or "/", terminal=False)
    bundle.write(place, replace(config, process=process, root=replace(config.root, path=str(tree))))
    return output(["runc", "run", "--bundle", place, "appc-hello"])


def by_podman(layout: Path, place: Path, _services: Places) -> str:
    ledger.own("appc")
    try:
        podman_store.make(place)
        env = {**os.environ, **podman_store.environment(place)}
        return output(["podman", "run", "--quiet", "--rm", f"oci:{layout}:hello"], env)
    finally:
        ledger.undo()
        ledger.own("")


def by_docker(layout: Path, place: Path, services: Places) -> str:
    archive = place / "hello.tar"
    subprocess.run(["skopeo", "copy", "--quiet", f"oci:{layout}:hello", f"docker-archive:{archive}:appc-hello:latest"], check=True)
    own = ["docker", "--host", f"unix://{services.docker}"]
    subprocess.run([*own, "image", "load", "--quiet", "--input", archive], check=True, capture_output=True)
    try:
        return output([*own, "container", "run", "--rm", "--net=none", "appc-hello"])
    finally:
        subprocess.run([*own, "image", "rm", "appc-hello"], check=True, capture_output=True)


def output(argv: list[object], env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run([str(each) for each in argv], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("run", [by_runc, by_podman, by_docker])
def test_the_oci_image_of_an_aci_runs(world: World, tmp_path: Path, services: Places, run: Callable[[Path, Path, Places], str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("containers are started as root")
    layout = Layout.create(tmp_path / "oci")
    to_oci(world.store, stored(world, manifest("example.com/hello")), layout, "hello")
    place = directory(tmp_path / "place")
    try:
        assert run(layout.path, place, services) == GREETING
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_there_and_back_again(world: World, web: str, tmp_path: Path, services: Places) -> None:
    key = world.fetch(f"docker://{web}", "image")
    layout = Layout.create(tmp_path / "oci")
    to_oci(world.store, key, layout, "hello")
    assert by_runc(layout.path, directory(tmp_path / "place"), services) == GREETING
