"""The store of images: what is in it is whole, is found again, and is rendered with what it stands on; the commands that show it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from labkit.appc import aci
from labkit.appc.command_image import bytes_in_words, image
from labkit.appc.image_manifest import App, Dependency, ImageManifest
from labkit.appc.render import Piece, pieces
from labkit.appc.settings import Settings
from labkit.appc.store import NotInStoreError, Store
from labkit.appc.types import ImageID
from labkit.errors import LabError

Files = dict[str, str | None]
Put = Callable[..., ImageID]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "rkt")


@pytest.fixture
def put(store: Store, tmp_path: Path) -> Put:
    """Put an image of some files into the store: a name that ends in a slash is a directory, `->` in a content makes a link."""

    def build(
        name: str, files: Files | None = None, *, version: str = "", compression: str | None = "gzip", latest: bool = False, **more: object
    ) -> ImageID:
        root = tmp_path / "build" / str(len(list((tmp_path / "build").glob("*"))) if (tmp_path / "build").exists() else 0) / "rootfs"
        root.mkdir(parents=True)
        for path, content in (files or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                (root / path).mkdir()
            elif content.startswith("->"):
                (root / path).symlink_to(content[2:])
            else:
                (root / path).write_text(content)
        labels = (("version", version),) if version else ()
        file = root.with_name("image.aci")
        aci.build(ImageManifest(name, labels, **more), root, file, compression=compression)  # type: ignore[arg-type]
        return store.put(file, latest=latest)

    return build


def tree(root: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = f"->{os.readlink(path)}" if path.is_symlink() else None if path.is_dir() else path.read_text()
    return found


def test_an_image_is_kept_uncompressed_under_its_name_once(store: Store, put: Put, tmp_path: Path) -> None:
    key = put("example.com/web", {"a": "1"}, version="1")
    file = tmp_path / "build/0/image.aci"
    assert str(aci.image_id(file)).startswith(str(key))
    assert len(str(key)) == len("sha512-") + 64
    assert store.blob(key).read_bytes()[257:262] == b"ustar"
    assert store.manifest(key).name == "example.com/web"
    before = store.images()
    assert store.put(file) == key
    assert store.images() == before
    assert not list((store.cas / "tmp").iterdir())


def test_what_breaks_a_rule_leaves_nothing_in_the_store(store: Store, tmp_path: Path) -> None:
    (tmp_path / "bad.aci").write_bytes(b"no tar")
    with pytest.raises(LabError):
        store.put(tmp_path / "bad.aci")
    assert store.images() == ()
    assert [path for path in store.cas.rglob("*") if path.is_file() and path.name != "lock"] == []


def test_an_image_is_found_by_what_a_person_types(store: Store, put: Put) -> None:
    old, new = put("example.com/web", {"a": "1"}, version="1"), put("example.com/web", {"a": "2"}, version="2")
    other = put("example.com/other")
    assert store.find("example.com/web") == new
    assert store.find("example.com/web:1") == store.find("example.com/web,version=1") == old
    assert store.find("example.com/web", (("version", "1"),)) == old
    assert store.find(str(other)[:20]) == store.find(f"{other}{'0' * 0}") == other
    for text, why in (
        ("example.com/web:3", 'satisfying name: "example.com/web:3"'),
        ("sha512-zz", "no image IDs found"),
        ("sha512-0000", "no image IDs found"),
    ):
        with pytest.raises(NotInStoreError, match=why):
            store.find(text)
    with pytest.raises(LabError, match="sha512"):
        store.find("sha512-")


def test_the_full_id_finds_what_the_store_abbreviates(store: Store, put: Put, tmp_path: Path) -> None:
    key = put("a")
    assert store.find(str(aci.image_id(tmp_path / "build/0/image.aci"))) == key


def test_what_comes_later_lies_over_what_was_there_and_no_link_is_followed(store: Store, put: Put) -> None:
    put("d", {"of": "d", "d": "d", "way/x": "d", "real/file": "d"})
    put("b", {"of": "b", "b": "b", "way": "->real", "dir": "was a file"}, dependencies=(Dependency("d"),))
    put("c", {"of": "c", "c": "c"}, dependencies=(Dependency("d"),))
    key = put("a", {"of": "a", "way/y": "a", "dir/z": "a"}, dependencies=(Dependency("b"), Dependency("c")))
    root = store.rendered(key)
    assert root == store.cas / "tree" / store.tree_id(key) / "rootfs"
    assert tree(root) == {
        "b": "b", "c": "c", "d": "d", "dir": None, "dir/z": "a", "of": "a", "real": None, "real/file": "d",
        "way": None, "way/x": "d", "way/y": "a",
    }  # fmt: skip


def test_the_order_is_depth_first_and_what_is_reached_twice_is_there_twice() -> None:
    stands = {"a": ("b", "c"), "b": ("d",), "c": ("d",), "d": ()}

    def manifest(key: ImageID) -> ImageManifest:
        return ImageManifest(key.text, dependencies=tuple(map(Dependency, stands[key.text])))

    def find(dependency: Dependency) -> ImageID:
        return ImageID(dependency.image_name)

    assert [each.key.text for each in pieces(ImageID("a"), manifest, find)] == ["d", "b", "d", "c", "a"]
    stands["d"] = ("a",)
    with pytest.raises(LabError, match="stands on itself"):
        pieces(ImageID("a"), manifest, find)
    stands |= {str(number): (str(number + 1), str(number + 1)) for number in range(50)} | {"50": ()}
    with pytest.raises(LabError, match="more than 1000 images"):
        pieces(ImageID("0"), manifest, find)
    assert pieces(ImageID("50"), manifest, find) == (Piece(ImageID("50"), ()),)


def test_a_white_list_takes_what_it_names_of_its_image_and_of_those_below(store: Store, put: Put) -> None:
    put(
        "base",
        {"etc/one": "1", "etc/two": "2", "usr/bin/x": "x", "empty": None, "link": "->etc"},
        path_whitelist=("/etc/one", "/usr/bin/x", "/empty/", "/link"),
    )
    key = put(
        "top", {"etc/three": "3", "etc/four": "4"}, dependencies=(Dependency("base"),), path_whitelist=("/etc/one", "/etc/three", "/empty")
    )
    assert tree(store.rendered(store.find("base"))) == {
        "empty": None, "etc": None, "etc/one": "1", "link": "->etc", "usr": None, "usr/bin": None, "usr/bin/x": "x",
    }  # fmt: skip
    assert tree(store.rendered(key)) == {"empty": None, "etc": None, "etc/one": "1", "etc/three": "3"}


def test_owners_modes_and_times_are_those_of_the_archive(store: Store, put: Put, tmp_path: Path) -> None:
    put("base", {"dir/a": "a", "dir/b": "b"})
    key = put("top", {"dir/c": "c"}, dependencies=(Dependency("base"),))
    original = tmp_path / "build/1/rootfs"
    root = store.rendered(key)
    for path in ("", "dir", "dir/c"):
        one, other = (original / path).stat(), (root / path).stat()
        assert (one.st_mode, one.st_uid, one.st_mtime) == (other.st_mode, other.st_uid, pytest.approx(other.st_mtime, abs=1e-6))


def test_a_dependency_that_is_not_there_or_another_one_is_refused(store: Store, put: Put) -> None:
    base = put("base", version="1")
    for wanted, why in (
        (Dependency("gone"), "gone"),
        (Dependency("base", labels=(("version", "2"),)), "base"),
        (Dependency("other", base), "dependency other has the id"),
        (Dependency("base", ImageID(f"sha512-{'0' * 128}")), "no image IDs"),
    ):
        with pytest.raises(LabError, match=why):
            store.rendered(put("top", {"a": why}, dependencies=(wanted,)))
    assert store.rendered(put("top", dependencies=(Dependency("base", base),)))
    assert not list((store.cas / "tree").glob("*.partial"))


def test_a_tree_is_rendered_once_and_known_again_when_somebody_changed_it(store: Store, put: Put) -> None:
    key = put("web", {"etc/passwd": "root"})
    root = store.rendered(key)
    made = root.stat().st_ino
    assert store.rendered(key).stat().st_ino == made
    (root / "etc/passwd").touch()
    os.utime(root / "etc/passwd", ns=(0, (root.parent / "rootfs/etc").stat().st_mtime_ns))
    with pytest.raises(LabError, match="not what was rendered"):
        store.rendered(key)
    with pytest.raises(LabError, match="not what was rendered"):
        store.verify(key)
    assert store.gc().trees == (store.tree_id(key),)
    assert store.rendered(key).stat().st_ino != made or tree(root) == {"etc": None, "etc/passwd": "root"}


def test_a_tree_that_was_copied_is_read_whole_and_then_trusted(store: Store, put: Put) -> None:
    key = put("web", {"a": "1"})
    root = store.rendered(key)
    (root / "a").chmod((root / "a").stat().st_mode)  # its time of change is another one now
    seen = (root.parent / "seen").read_text()
    assert store.rendered(key) == root
    assert (root.parent / "seen").read_text() != seen


def test_an_archive_that_was_changed_is_known(store: Store, put: Put) -> None:
    key = put("web", {"a": "1"})
    store.verify(key)
    with store.blob(key).open("r+b") as file:
        file.seek(1024)
        file.write(b"x")
    with pytest.raises(LabError, match="not what its name says"):
        store.verify(key)


def test_what_a_pod_uses_is_left_alone(store: Store, put: Put) -> None:
    base = put("base")
    key, other = put("web", {"a": "1"}, dependencies=(Dependency("base"),)), put("other", {"b": "1"})
    used, unused = store.tree_id(key), store.tree_id(other)
    note = store.directory / "pods/run/1-2-3/appsinfo/web/treeStoreID"
    note.parent.mkdir(parents=True)
    note.write_text(f"{used}\n")
    root = store.rendered(key)
    store.rendered(other)
    collected = store.gc(grace_period=0)
    assert collected.trees == (unused,)
    assert [each.name for each in collected.images] == ["other"]
    assert {each.key for each in store.images()} == {base, key}
    store.remove(key)
    assert root.is_dir()
    note.unlink()
    assert store.gc(grace_period=0).trees == (used,)


def test_what_an_interruption_left_is_swept(store: Store, put: Put) -> None:
    key = put("web")
    lost = store.blob(key).with_name("sha512-lost")
    lost.touch()
    (store.cas / "tree/deps-sha512-x.partial/rootfs").mkdir(parents=True)
    for name, age in (("old", 7200), ("young", 0)):
        (store.cas / "tmp" / name).touch()
        os.utime(store.cas / "tmp" / name, (1, os.stat(store.cas / "tmp" / name).st_mtime - age))
    store.gc()
    assert not lost.exists()
    assert not list((store.cas / "tree").iterdir())
    assert os.listdir(store.cas / "tmp") == ["young"]
    assert store.find("web") == key


def test_whoever_is_killed_while_it_renders_leaves_a_store_that_is_whole(store: Store, put: Put) -> None:
    key = put("web", {f"{number % 50}/{number}": "x" for number in range(3000)})
    code = f"""from labkit.appc.store import ImageID, Path, Store; Store(Path({str(store.directory)!r})).rendered(ImageID({key.text!r}))"""
    partial = store.cas / "tree" / f"{store.tree_id(key)}.partial" / "rootfs" / "1"
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        while not partial.exists() and child.poll() is None:
            time.sleep(0.001)
        child.kill()
    assert child.returncode == -9
    assert not (store.cas / "tree" / store.tree_id(key)).exists()
    assert len(tree(store.rendered(key))) == 3050
    assert not partial.exists()


def test_many_at_once_put_and_render_the_same(store: Store, put: Put, tmp_path: Path) -> None:
    put("base", {str(number): "x" for number in range(50)})
    key = put("web", {"a": "1"}, dependencies=(Dependency("base"),))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            mine = Store(store.directory)
            assert mine.put(tmp_path / "build/1/image.aci") == key
            assert len(tree(mine.rendered(key))) == 51
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(list((store.cas / "tree").iterdir())) == 1


# The commands.


@pytest.fixture
def rkt(store: Store) -> Callable[..., Result]:
    return lambda *words: CliRunner().invoke(image, list(words), obj=Settings(directory=store.directory))


def test_the_list_has_the_columns_of_rkt(rkt: Callable[..., Result], put: Put, store: Store) -> None:
    assert rkt("list").output == "ID\tNAME\tSIZE\tIMPORT TIME\tLAST USED\n"
    key = put("example.com/web", {"a": "1"}, version="1", app=App((), "0", "0"))
    first, second = rkt("list").output.splitlines()
    assert first.split() == ["ID", "NAME", "SIZE", "IMPORT", "TIME", "LAST", "USED"]
    assert [each for each in second.split("\t") if each] == [str(key)[:19], "example.com/web:1", "10KiB", "now", "now"]
    assert rkt("list", "--no-legend", "--fields=name,latest").output == "example.com/web:1\tfalse\n"
    full = [each for each in rkt("list", "--full", "--no-legend").output.strip().split("\t") if each]
    assert full[:3] == [str(key), "example.com/web:1", "10240"]
    assert full[3][4] == "-"
    (told,) = json.loads(rkt("list", "--format=json").output)
    assert (told["id"], told["name"], told["size"]) == (str(key), "example.com/web:1", 10240)
    store.rendered(key)
    assert json.loads(rkt("list", "--format=json-pretty").output)[0]["size"] == 10241


def test_the_list_is_sorted_as_asked(rkt: Callable[..., Result], put: Put) -> None:
    for name in ("b", "a", "c"):
        put(name)
    names = [
        rkt("list", "--no-legend", "--fields=name", *more).output.split()
        for more in ((), ("--sort=name",), ("--sort=name", "--order=desc"))
    ]
    assert names == [["b", "a", "c"], ["a", "b", "c"], ["c", "b", "a"]]
    wrong = rkt("list", "--sort=colour")
    assert (wrong.exit_code, wrong.stderr.splitlines()[0][:30]) == (254, 'list: invalid argument "colour')


def test_what_is_removed_and_what_is_not_there_is_said_with_status_0(rkt: Callable[..., Result], put: Put) -> None:
    key = put("example.com/web")
    done = rkt("rm", "nope", "sha512-00", "example.com/web")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        'rm: cannot find aci satisfying name: "nope"',
        "rm: no image IDs found",
        f'rm: successfully removed aci for image: "{key}" ("example.com/web")',
        "rm: 1 image(s) successfully removed",
    ]
    assert rkt("list", "--no-legend").output == ""


def test_a_manifest_is_printed_pretty_or_not(rkt: Callable[..., Result], put: Put) -> None:
    put("web", app=App(("/a",), "0", "0", environment=(("A", "<b>"),)))
    assert rkt("cat-manifest", "web").output.startswith('{\n\t"acKind": "ImageManifest",\n\t"acVersion"')
    assert '"value":"\\u003cb\\u003e"' in rkt("cat-manifest", "--pretty-print=false", "web").output
    missing = rkt("cat-manifest", "nope")
    assert (missing.exit_code, missing.stderr) == (254, 'cat-manifest: cannot find aci satisfying name: "nope"\n')


def test_an_image_is_exported_extracted_and_rendered(rkt: Callable[..., Result], put: Put, tmp_path: Path, store: Store) -> None:
    put("base", {"below": "1"})
    key = put("web", {"a": "1"}, dependencies=(Dependency("base"),))
    out = tmp_path / "out.aci"
    assert rkt("export", "web", str(out)).exit_code == 0
    assert str(aci.image_id(out)).startswith(str(key))
    assert rkt("export", "web", str(out)).exit_code == 254
    assert rkt("export", "--overwrite", "web", str(out)).exit_code == 0
    for verb, more, expected in (
        ("extract", (), {"manifest", "rootfs", "rootfs/a"}),
        ("render", (), {"manifest", "rootfs", "rootfs/a", "rootfs/below"}),
        ("extract", ("--rootfs-only",), {"a"}),
        ("render", ("--rootfs-only=true",), {"a", "below"}),
    ):
        place = tmp_path / "place"
        assert rkt(verb, *more, "--overwrite", "web", str(place)).exit_code == 0
        assert set(tree(place)) == expected
        assert rkt(verb, "web", str(place)).stderr == f"{verb}: output directory exists (try --overwrite)\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build", "out.aci", "place", "rkt"]
    assert rkt("render", "--overwrite", "web", ".").exit_code == 254


def test_images_are_verified_and_collected(rkt: Callable[..., Result], put: Put, store: Store) -> None:
    key = put("web", {"a": "1"})
    store.rendered(key)
    assert rkt("verify", "web").output == f'successfully verified checksum for image: "web" ("{key}")\n'
    assert rkt("gc").output == ""
    collected = rkt("gc", "--grace-period=0s").stderr.splitlines()
    assert collected[0].startswith('gc: removed treestore "deps-sha512-')
    assert collected[1:] == [f'gc: successfully removed aci for image: "{key}" ("web")', "gc: 1 image(s) successfully removed"]


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0B"), (1023, "1023B"), (1024, "1.0KiB"), (10240, "10KiB"), (2**20 * 19 // 10, "1.9MiB"), (2**50, "1024TiB")]
)
def test_a_size_is_told_in_words(count: int, words: str) -> None:
    assert bytes_in_words(count) == words
