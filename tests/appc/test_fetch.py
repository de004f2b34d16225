"""Images fetched into the store: from files, URLs, names; signatures, policies, dependencies."""

import shutil
from pathlib import Path

import pytest
from appc_hosts import Dependency, World, make, manifest
from click.testing import CliRunner

from labkit.appc.command_fetch import fetch_command, trust
from labkit.appc.discovery import DiscoveryError
from labkit.appc.keystore import SignatureError
from labkit.appc.publishing import Signer
from labkit.appc.web import WebError
from labkit.errors import LabError

URL = "https://files.example.com/example.com/web/1/linux/amd64/image.aci"
NAME = "example.com/web:1,os=linux,arch=amd64"


def test_a_name_leads_to_an_image_whose_signature_is_checked(world: World) -> None:
    with pytest.raises(SignatureError, match="openpgp: signature made by unknown entity"):
        world.fetch(NAME)
    assert world.store.images() == ()
    world.trust("example.com")
    key = world.fetch(NAME)
    assert world.store.manifest(key).name == "example.com/web"
    assert world.said[-2:] == ["image: signature verified:", "  Ann <ann@example.com>"]
    assert f'image: remote fetching from URL "{URL}"' in world.said
    assert "image: searching for app image example.com/web" in world.said
    assert not list((world.store.directory / "cas/tmp").iterdir())


def test_without_the_check_of_images_nobody_is_trusted_and_it_comes(world: World) -> None:
    assert world.fetch(NAME, "image")


def test_a_url_needs_no_discovery(world: World) -> None:
    world.trust("example.com")
    assert world.fetch(URL) == world.fetch(NAME)


def test_what_is_in_the_store_is_not_fetched_again(world: World) -> None:
    key = world.fetch(URL, "image")
    world.said.clear()
    assert world.fetch("example.com/web:1") == key
    assert world.fetch(URL) == key
    assert world.fetch(str(key)[:20]) == key
    assert [line.split(" for ")[0] for line in world.said] == ["image: using image from local store"] * 2


def test_an_update_asks_whether_it_has_changed(world: World, ann: Signer) -> None:
    key = world.fetch(URL, "image", policy="update")
    world.said.clear()
    assert world.fetch(URL, "image", policy="update") == key
    assert world.said[-1] == f"image: using image from local store for url {URL}"
    world.publish(manifest("example.com/web"), ann, more="of it")
    other = world.fetch(URL, "image", policy="update")
    assert other != key


def test_an_image_that_came_unchecked_is_checked_when_that_is_asked_for(world: World) -> None:
    world.fetch(URL, "image", policy="update")
    with pytest.raises(SignatureError):
        world.fetch(URL, policy="update")


def test_never_looks_nowhere_else(world: World) -> None:
    for text in (URL, "example.com/web:1", "docker://nginx"):
        with pytest.raises(LabError, match="from the store"):
            world.fetch(text, "image", policy="never")


def test_a_version_that_is_not_there_is_404(world: World) -> None:
    with pytest.raises(WebError, match="bad HTTP status code: 404"):
        world.fetch("example.com/web:2,os=linux,arch=amd64", "image")


def test_a_host_that_is_not_there_fails_discovery(world: World) -> None:
    with pytest.raises(DiscoveryError, match="discovery failed"):
        world.fetch("example.org/web", "image")


def test_an_image_of_another_name_is_refused(world: World) -> None:
    shutil.copytree(world.sites / "files.example.com/example.com/web/1", world.sites / "files.example.com/example.com/web/2")
    with pytest.raises(LabError, match="the image has version 1, not 2"):
        world.fetch("example.com/web:2,os=linux,arch=amd64", "image")
    shutil.copytree(world.sites / "files.example.com/example.com/web", world.sites / "files.example.com/example.com/web/other")
    with pytest.raises(LabError, match=r"the image is example\.com/web, not example\.com/web/other"):
        world.fetch("example.com/web/other:1,os=linux,arch=amd64", "image")
    assert world.store.images() == ()


def test_a_signature_for_one_name_is_none_for_another(world: World, eve: Signer) -> None:
    """Eve is trusted for her own images; hers in the place of Ann's are refused."""
    world.trust("example.com/web")
    world.keystore.trust(eve.public(), "example.com/eve")
    placed = world.sites / URL.removeprefix("https://")
    eve.sign(placed, placed.with_name("image.aci.asc"))
    with pytest.raises(SignatureError):
        world.fetch(NAME)


def test_what_an_image_stands_on_is_fetched_too(world: World, ann: Signer) -> None:
    world.trust()
    labels = (("os", "linux"), ("arch", "amd64"), ("version", "1"))
    base = world.fetch(NAME)
    world.store.remove(base)
    world.publish(manifest("example.com/top", dependencies=(Dependency("example.com/web", labels=labels),)), ann)
    world.fetch("example.com/top:1,os=linux,arch=amd64")
    assert sorted(each.name for each in world.store.images()) == ["example.com/top", "example.com/web"]


def test_images_that_stand_on_each_other_end(world: World, ann: Signer) -> None:
    labels = (("os", "linux"), ("arch", "amd64"), ("version", "1"))
    for one, other in (("a", "b"), ("b", "a")):
        world.publish(manifest(f"example.com/{one}", dependencies=(Dependency(f"example.com/{other}", labels=labels),)), ann)
    world.fetch("example.com/a:1,os=linux,arch=amd64", "image")
    assert sorted(each.name for each in world.store.images()) == ["example.com/a", "example.com/b"]


def test_a_file_needs_its_signature_beside_it(world: World, ann: Signer) -> None:
    file = make(world.place / "local.aci", manifest("example.com/local"))
    with pytest.raises(FileNotFoundError, match=r"local\.aci\.asc"):
        world.fetch(str(file))
    ann.sign(file, file.with_name("local.aci.asc"))
    world.trust("example.com")
    key = world.fetch(str(file))
    file.with_name("local.aci.asc").rename(world.place / "elsewhere")
    assert world.fetch(f"file://{file}", signature=world.place / "elsewhere") == key
    assert world.fetch(str(file), "image") == key


def test_other_schemes_and_things_are_refused(world: World) -> None:
    with pytest.raises(LabError, match="only supports http, https, docker or file"):
        world.fetch("ftp://example.com/a.aci")
    with pytest.raises(LabError, match="signature verification for docker images is not supported"):
        world.fetch("docker://nginx")
    (world.place / "bad.aci").write_bytes(b"no archive")
    with pytest.raises(LabError):
        world.fetch(str(world.place / "bad.aci"), "image")


def rkt(world: World, command: object, *words: str, input: str = "") -> tuple[int, str, str]:  # noqa: A002
    own = ["--dir", str(world.store.directory), "--local-config", str(world.place / "etc")]
    done = CliRunner().invoke(command, [*words, *own], input=input)  # type: ignore[arg-type]
    return done.exit_code, done.stdout, done.stderr


def test_fetch_prints_the_id_and_nothing_else_on_its_output(world: World) -> None:
    status, out, _ = rkt(world, fetch_command, "--insecure-options=image", URL)
    assert status == 0
    assert out == f"{str(world.store.find('example.com/web'))[:39]}\n"


def test_a_refusal_is_a_line_and_254(world: World) -> None:
    assert rkt(world, fetch_command, "./none.aci", "--insecure-options=image")[::2] == (
        254,
        "image: using image from file none.aci\nfetch: open none.aci: no such file or directory\n",
    )
    status, out, err = rkt(world, fetch_command, URL)
    assert (status, out) == (254, "")
    assert "fetch: openpgp: signature made by unknown entity\n" in err
    assert 'rkt trust --prefix "example.com/web"' in err
    assert rkt(world, fetch_command, URL, "--insecure-options=imagine")[0] == 254


def test_trust_finds_the_key_shows_it_and_asks(world: World) -> None:
    status, _, err = rkt(world, trust, "--prefix", "example.com/web", input="no\n")
    assert status == 0
    assert 'prefix: "example.com/web"\nkey: "https://example.com/key.asc"\ngpg key fingerprint is: ' in err
    assert 'Not trusting "https://example.com/key.asc"' in err
    status, _, err = rkt(world, trust, "--prefix", "example.com/web", input="yes\n")
    assert 'Trusting "https://example.com/key.asc" for prefix "example.com/web" after fingerprint review.' in err
    assert f'Added key for prefix "example.com/web" at "{world.place}/etc/trustedkeys/prefix.d/example.com/web/' in err
    assert rkt(world, fetch_command, NAME)[0] == 0


def test_trust_takes_a_file_and_needs_a_prefix_or_the_root(world: World) -> None:
    key = str(world.sites / "example.com/key.asc")
    assert rkt(world, trust, key)[0] == 254
    assert rkt(world, trust, key, "--root", "--prefix=a")[0] == 254
    assert rkt(world, trust, "--root")[0] == 254
    assert rkt(world, trust, "--prefix=https://example.com")[0] == 254
    status, _, err = rkt(world, trust, key, "--root", "--skip-fingerprint-review")
    assert status == 0
    assert f'Added root key at "{world.place}/etc/trustedkeys/root.d/' in err


def test_a_rooted_path_of_a_store_has_nothing_but_what_is_whole(world: World, tmp_path: Path) -> None:
    with pytest.raises(WebError):
        world.fetch(URL.replace("image.aci", "none.aci"), "image")
    assert world.store.images() == ()
    assert not list((world.store.directory / "cas/tmp").iterdir())
