"""Images of docker as ACIs and back: names, how they are run, and what has no word on the other side."""

import json
from pathlib import Path

import pytest

from labkit.appc import docker, to_oci
from labkit.appc.image_manifest import App, EventHandler, ImageManifest, Isolator, MountPoint, Port
from labkit.appc.types import ManifestError
from labkit.errors import LabError
from labkit.images.image import ImageParts
from labkit.images.oci import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, Execution, ImageConfig, Platform
from labkit.images.reference import Reference

LAYERS = tuple(Descriptor(LAYER_GZIP, f"sha256:{digit * 64}", 1) for digit in "12")
WEB = Execution(
    entrypoint=("/entry",),
    cmd=("serve", "--now"),
    env=("PATH=/bin", "A=1=2", "A=3", "EMPTY="),
    user="www",
    exposed_ports=("8080/tcp", "53/udp", "9000-9002/tcp", "22"),
    volumes=("/data", "/var/lib/My_Data"),
    labels={"maintainer": "nobody"},
)


def parts(execution: Execution = WEB, **more: object) -> ImageParts:
    config = ImageConfig(Platform("arm64", "linux"), ("a", "b"), execution, created="2016-05-02T09:00:00.5Z")
    record = {**json.loads(config.serialize()), **more}
    raw = ImageConfig(config.platform, config.diff_ids, execution, (), config.created, raw=json.dumps(record).encode())
    return ImageParts("web", None, (), Descriptor(MANIFEST, f"sha256:{'a' * 64}", 1), Descriptor(CONFIG, "", 1), raw, LAYERS)


def manifest(text: str = "127.0.0.1:5055/library/web", execution: Execution = WEB, **more: object) -> ImageManifest:
    return docker.manifest_of(parts(execution, **more), Reference.parse(text), text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nginx", "registry-1.docker.io/library/nginx"),
        ("docker.io/lfs/nginx:1", "registry-1.docker.io/lfs/nginx"),
        ("127.0.0.1:5055/library/web", "127.0.0.1_5055/library/web"),
        ("localhost:5001/a/b:c", "localhost_5001/a/b"),
    ],
)
def test_a_colon_of_the_registry_becomes_an_underscore(text: str, name: str) -> None:
    assert docker.aci_name(Reference.parse(text)) == name


def test_the_manifest_is_that_of_docker2aci() -> None:
    found = manifest(author="Ann")
    assert found.labels == (("arch", "aarch64"), ("os", "linux"), ("version", "latest"))
    app = found.app
    assert app
    assert app.exec == ("/entry", "serve", "--now")
    assert (app.user, app.group, app.working_directory) == ("www", "www", "/")
    assert app.environment == (("PATH", "/bin"), ("A", "3"), ("EMPTY", ""))
    assert [(each.name, each.path) for each in app.mount_points] == [
        ("volume-data", "/data"),
        ("volume-var-lib-my-data", "/var/lib/My_Data"),
    ]
    ports = [(each.name, each.protocol, each.port, each.count) for each in app.ports]
    assert ports == [("22-tcp", "tcp", 22, 1), ("53-udp", "udp", 53, 1), ("8080-tcp", "tcp", 8080, 1), ("9000-9002-tcp", "tcp", 9000, 3)]
    assert found.annotations == (
        ("author", "Ann"),
        ("created", "2016-05-02T09:00:00.5Z"),
        ("appc.io/docker/originalname", "127.0.0.1:5055/library/web"),
        ("appc.io/docker/registryurl", "127.0.0.1:5055"),
        ("appc.io/docker/repository", "library/web"),
        ("appc.io/docker/imageid", f"sha256:{'2' * 64}"),
        ("appc.io/docker/manifesthash", f"sha256:{'a' * 64}"),
        ("appc.io/docker/entrypoint", '["/entry"]'),
        ("appc.io/docker/cmd", '["serve", "--now"]'),
    )


def test_labels_of_the_image_are_not_carried_over() -> None:
    assert "maintainer" not in str(manifest().record())


@pytest.mark.parametrize(("user", "both"), [("", ("0", "0")), ("www", ("www", "www")), ("7:8", ("7", "8")), ("www:", ("www", "www"))])
def test_a_user_without_a_group_is_its_own_group(user: str, both: tuple[str, str]) -> None:
    app = manifest(execution=Execution(cmd=("sh",), user=user)).app
    assert app
    assert (app.user, app.group) == both


def test_an_image_that_says_not_how_it_is_run_has_no_app() -> None:
    assert manifest(execution=Execution()).app is None


def test_what_has_no_place_in_a_manifest_is_refused_by_its_field() -> None:
    with pytest.raises(ManifestError, match=r"app\.environment\[0\]\.name"):
        manifest(execution=Execution(cmd=("sh",), env=("a.b=c",)))
    with pytest.raises(LabError, match="exposed port 'http'"):
        manifest(execution=Execution(cmd=("sh",), exposed_ports=("http",)))
    with pytest.raises(ManifestError, match="count"):
        manifest(execution=Execution(cmd=("sh",), exposed_ports=("65000-65999/tcp",)))


def test_an_aci_is_run_by_oci_as_by_appc(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/owned").write_text("")
    app = App(
        exec=("/bin/web", "-f"),
        user="/etc/owned",
        group="7",
        working_directory="/srv",
        environment=(("A", "1"),),
        mount_points=(MountPoint("data", "/data"),),
        ports=(Port("http", "tcp", 80), Port("many", "udp", 90, 3)),
    )
    found = to_oci.execution(ImageManifest("example.com/web", labels=(("version", "1"),), app=app), tmp_path)
    owner = (tmp_path / "etc/owned").stat().st_uid
    assert (found.entrypoint, found.cmd, found.env) == (("/bin/web", "-f"), (), ("A=1",))
    assert (found.user, found.working_dir) == (f"{owner}:7", "/srv")
    assert (found.exposed_ports, found.volumes) == (("80/tcp", "90-92/udp"), ("/data",))
    assert found.labels == {"appc.name": "example.com/web", "appc.version": "1"}


def test_a_user_that_is_a_file_which_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"app\.user: /etc/none is not in the image"):
        to_oci.execution(ImageManifest("a", app=App(("/a",), "/etc/none", "0")), tmp_path)


def test_what_oci_has_no_word_for_is_named() -> None:
    app = App(
        exec=("/a",),
        user="0",
        group="0",
        supplementary_gids=(5,),
        event_handlers=(EventHandler("pre-start", ("/b",)),),
        isolators=(Isolator("resource/memory", {"limit": "1G"}),),
        mount_points=(MountPoint("data", "/data", read_only=True),),
        ports=(Port("http", "tcp", 80),),
    )
    assert to_oci.lost(app) == (
        "event handler pre-start",
        "isolator resource/memory",
        "read-only mount point data",
        "name of port http",
        "name of mount point data",
        "supplementary groups",
    )
    assert to_oci.lost(None) == ()
