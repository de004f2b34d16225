"""From the words of `rkt run` to a pod manifest, and to a pod on disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.appc import isolator_values as names
from labkit.appc.app import App, MountPoint, Port
from labkit.appc.image_manifest import ImageManifest
from labkit.appc.isolator_values import Isolator
from labkit.appc.options import GLOBAL, RUN, Image, Line, OptionError, parse
from labkit.appc.pod import State
from labkit.appc.pod_manifest import ExposedPort, Mount, PodManifest, Volume
from labkit.appc.pods import Pods
from labkit.appc.prepare import PrepareError, name_of, prepare, reified, settings_of, volume
from labkit.appc.types import ImageID, ManifestError

APP = App(
    exec=("/bin/web", "serve"),
    user="0",
    group="0",
    environment=(("PATH", "/bin"), ("MODE", "image")),
    mount_points=(MountPoint("data", "/data"),),
    ports=(Port("80-tcp", "tcp", 80),),
    isolators=(Isolator(names.MEMORY, {"limit": "1G"}), Isolator(names.CAPABILITIES_REMOVE, {"set": ["CAP_KILL"]})),
)
WEB = ImageManifest("example.com/web", labels=(("version", "1.0"),), app=APP)
BARE = ImageManifest("example.com/bare")
KEY = ImageID("sha512-" + "a" * 64)


def line(words: str) -> Line:
    return parse(words.split(), {**RUN, **GLOBAL})


def pod_of(words: str, *manifests: ImageManifest) -> PodManifest:
    return reified(line(words), [(KEY, manifest) for manifest in manifests or (WEB,)])


def app_of(words: str, manifest: ImageManifest = WEB) -> App:
    found = pod_of(words, manifest).apps[0].app
    assert found
    return found


def test_an_image_alone_is_run_as_it_says() -> None:
    pod = pod_of("web")
    assert pod.apps[0].app == APP
    assert (pod.apps[0].name, pod.apps[0].image_name, pod.apps[0].image_id) == ("web", "example.com/web", KEY)
    assert pod.apps[0].image_labels == (("version", "1.0"),)


def test_the_record_is_what_rkt_shows() -> None:
    record = pod_of("web").record()
    assert list(record)[:2] == ["acVersion", "acKind"]
    assert (record["acVersion"], record["volumes"], record["ports"]) == ("1.30.0", None, None)
    assert record["annotations"] == [{"name": "coreos.com/rkt/stage1/mutable", "value": "false"}]


@pytest.mark.parametrize(
    ("words", "run"),
    [
        ("web -- --fast", ("/bin/web", "serve", "--fast")),
        ("web --exec /bin/sh", ("/bin/sh",)),
        ("web --exec /bin/sh -- -c true", ("/bin/sh", "-c", "true")),
    ],
)
def test_what_is_run(words: str, run: tuple[str, ...]) -> None:
    assert app_of(words).exec == run


def test_who_and_where() -> None:
    app = app_of("web --user=www --group=33 --working-dir=/srv --supplementary-gids=10,20 --user-label=a=b --user-annotation=c=d")
    assert (app.user, app.group, app.working_directory, app.supplementary_gids) == ("www", "33", "/srv", (10, 20))
    assert (app.user_labels, app.user_annotations) == ((("a", "b"),), (("c", "d"),))


def test_an_image_without_app_needs_a_program() -> None:
    assert app_of("bare --exec /bin/sh", BARE) == App(exec=("/bin/sh",), user="0", group="0")
    with pytest.raises(OptionError, match="no app section"):
        pod_of("bare", BARE)


def test_a_later_source_of_environment_takes_the_place_of_an_earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODE", "ours")
    monkeypatch.setenv("HERE", "1")
    monkeypatch.setenv("BASH_FUNC_x%%", "()")
    file = tmp_path / "env"
    file.write_text("# a remark\n; another\n\nFILE=1\nA=file\nB=file\n")
    words = f"--inherit-env --set-env-file={file} --set-env=A=pod --set-env=B=pod web --environment=B=app"
    found = dict(app_of(words).environment)
    assert "BASH_FUNC_x%%" not in found
    wanted = {"PATH": "/bin", "MODE": "image", "HERE": "1", "FILE": "1", "A": "pod", "B": "app"}
    assert {name: found[name] for name in wanted} == wanted


def test_isolators_of_the_line_replace_those_of_the_image() -> None:
    app = app_of("web --memory=50M --cpu=500m --cpu-shares=512 --oom-score-adjust=-5 --caps-retain=CAP_CHOWN,CAP_KILL")
    assert {each.name: each.value for each in app.isolators} == {
        names.MEMORY: {"request": "50M", "limit": "50M"},
        names.CPU: {"request": "500m", "limit": "500m"},
        names.CPU_SHARES: 512,
        names.OOM_SCORE_ADJ: -5,
        names.CAPABILITIES_RETAIN: {"set": ["CAP_CHOWN", "CAP_KILL"]},
    }
    filtered = app_of("web --seccomp mode=retain,errno=EPERM,chmod,chown").isolators[-1]
    assert filtered == Isolator(names.SECCOMP_RETAIN, {"set": ["chmod", "chown"], "errno": "EPERM"})


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("web --environment=A", 'invalid argument "A" for --environment'),
        ("web --memory=lots", "isolators.*lots"),
        ("web --cpu-shares=1", "isolators"),
        ("web --cpu-shares=x", "a whole number"),
        ("web --supplementary-gids=x", "GID,GID"),
        ("web --caps-retain=CAP_KILL --caps-remove=CAP_KILL", "exclude each other"),
        ("web --seccomp chmod", "mode=retain|remove"),
        ("web --name=Wrong", "AC name"),
        ("web --working-dir=here", "absolute path"),
        ("web --mount volume=a", "volume=NAME,target=PATH"),
        ("web --mount volume=a,target=rel", "volume=NAME,target=PATH"),
        ("web --mount volume=a,target=/a", 'no volume for mount "a"'),
        ("--port=nope:80 web", 'port name "nope" could not be found in any apps'),
        ("--port=80-tcp web", "NAME:\\[IP:\\]HOSTPORT"),
        ("--port=80-tcp:99999 web", "ports\\[0\\].hostPort"),
        ("--volume=a,kind=host,source=rel web", "absolute path"),
        ("--volume=a web", "kind"),
        ("--volume=a,kind=empty,color=red web", 'unknown volume parameter "color"'),
        ("--volume=a,kind=empty,uid=x web", "uid is a number"),
        ("--volume=a,kind=empty,readOnly=x web", "readOnly is true or false"),
        ("--volume=a,kind=empty --volume=a,kind=empty web", "twice"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(words: str, why: str) -> None:
    with pytest.raises((OptionError, PrepareError, ManifestError), match=why):
        pod_of(words)


def test_two_apps_of_one_name_are_refused() -> None:
    with pytest.raises(PrepareError, match="error setting up stage0: error: multiple apps with name web"):
        pod_of("web web", WEB, WEB)
    assert [app.name for app in pod_of("web web --name=web2", WEB, WEB).apps] == ["web", "web2"]


def test_volumes_mounts_and_ports() -> None:
    words = (
        "--volume=rkthostrovol,kind=host,source=/srv/rktrovol,readOnly=true --volume db,kind=empty,mode=0700,uid=5 --port=80-tcp:8080"
        " --port=80-tcp:127.0.0.1:8081 --mount volume=db,target=/db web --mount volume=rkthostrovol,target=/data/app2 two"
    )
    pod = pod_of(words, WEB, replace(WEB, name="two"))
    assert pod.volumes == (
        Volume("rkthostrovol", "host", "/srv/rktrovol", read_only=True),
        Volume("db", "empty", mode="0700", uid=5, gid=0),
    )
    assert [app.mounts for app in pod.apps] == [(Mount("db", "/db"), Mount("rkthostrovol", "/data/app2")), (Mount("db", "/db"),)]
    assert pod.ports == (ExposedPort("80-tcp", 8080), ExposedPort("80-tcp", 8081, "127.0.0.1"))
    assert PodManifest.parse(json.dumps(pod.record()).encode()) == pod


def test_a_volume_may_say_that_its_first_word_is_its_name() -> None:
    assert volume("name=a,kind=empty") == volume("a,kind=empty") == Volume("a", "empty", mode="0755", uid=0, gid=0)


def test_an_app_is_called_as_the_last_part_of_its_image() -> None:
    images = ["registry-1.docker.io/library/nginx", "coreos.com/etcd", "127.0.0.1_5000/My.App_2"]
    assert [name_of(name) for name in images] == ["nginx", "etcd", "my-app-2"]


class FakeStore:
    """A store with one image."""

    def __init__(self, trees: Path) -> None:
        self.trees = trees

    def find(self, text: str) -> ImageID:
        return ImageID(text)

    def manifest(self, key: ImageID) -> ImageManifest:
        return WEB

    def rendered(self, key: ImageID) -> Path:
        return self.trees / self.tree_id(key) / "rootfs"

    def tree_id(self, key: ImageID) -> str:
        return "deps-sha512-1234"


def test_a_prepared_pod_has_all_that_stage_1_needs(tmp_path: Path) -> None:
    pod = prepare(Pods(tmp_path), FakeStore(tmp_path / "cas/tree"), line("web --readonly-rootfs"), lambda image: KEY)
    assert pod.state is State.PREPARING
    assert pod.manifest.apps[0].read_only_root_fs
    assert pod.image_of("web") == tmp_path / "cas/tree/deps-sha512-1234/rootfs"
    assert ImageManifest.parse((pod.directory / "appsinfo/web/manifest").read_bytes()) == WEB
    assert pod.overlay
    assert pod.stage1.is_dir()


def test_a_prepare_that_fails_is_left_to_gc(tmp_path: Path) -> None:
    store = FakeStore(tmp_path)
    store.rendered = lambda key: 1 / 0
    with pytest.raises(ZeroDivisionError):
        prepare(Pods(tmp_path), store, line("--no-overlay web"), lambda image: KEY)
    assert [pod.state for pod in Pods(tmp_path).all()] == [State.ABORTED]


@pytest.mark.parametrize(
    ("words", "why"),
    [("", "at least one image"), ("--interactive a b", "only supports one image"), ("--private-users a", "not supported")],
)
def test_a_line_that_says_too_little_or_too_much_makes_no_pod(tmp_path: Path, words: str, why: str) -> None:
    def none(image: Image) -> ImageID:
        raise AssertionError

    with pytest.raises(OptionError, match=why):
        prepare(Pods(tmp_path), FakeStore(tmp_path), line(words), none)
    assert Pods(tmp_path).all() == ()


def test_a_whole_pod_manifest_may_be_given(tmp_path: Path) -> None:
    file = tmp_path / "pod.json"
    file.write_text(json.dumps(pod_of("web --exec /bin/true").record()))
    pod = prepare(Pods(tmp_path), FakeStore(tmp_path), line(f"--pod-manifest={file} --no-overlay"), lambda image: KEY)
    assert pod.manifest == pod_of("web --exec /bin/true")
    assert not pod.overlay


def test_settings_are_read_from_the_line() -> None:
    found = settings_of(line("--hostname=box --dns=8.8.8.8 --dns=8.8.4.4 --dns-search=lan --hosts-entry=10.2.1.42=db web"))
    assert (found.hostname, found.dns, found.dns_search) == ("box", ("8.8.8.8", "8.8.4.4"), ("lan",))
    assert found.hosts_entry == ("10.2.1.42=db",)
