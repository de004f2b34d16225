"""From a command line to a pod that can be run: images fetched, the pod manifest written out in full, the images' trees rendered."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from labkit.appc.image_manifest import ImageManifest
from labkit.appc.options import Image, Line, OptionError
from labkit.appc.overrides import app_of
from labkit.appc.pod import Pod, Settings
from labkit.appc.pod_manifest import VERSION, ExposedPort, Mount, PodManifest, RuntimeApp, Volume
from labkit.appc.pods import Pods
from labkit.appc.store import Store
from labkit.appc.types import ImageID, ManifestError, ac_name, serialized
from labkit.errors import LabError

MUTABLE = "coreos.com/rkt/stage1/mutable"
"""The annotation that says whether apps can be added to a running pod; here never."""

Fetch = Callable[[Image], ImageID]


class PrepareError(LabError):
    """Say why a pod cannot be prepared."""

    def __init__(self, why: str) -> None:
        super().__init__(f"error setting up stage0: error: {why}")


def prepare(pods: Pods, store: Store, line: Line, fetch: Fetch) -> Pod:
    """Make a pod of a command line; it is held by this process and lies in prepare/.

    Args:
        pods: where it goes.
        store: the images.
        line: what `rkt run` or `rkt prepare` was given.
        fetch: gives the key of an image of the line, fetched where the store does not have it.

    Raises:
        OptionError: an option whose value cannot be read.
        PrepareError: two apps of one name, a port or a volume that nobody has.
        ManifestError: the pod manifest would break a rule.
        LabError: an image cannot be had.
    """
    if "private-users" in line.given:
        raise OptionError("--private-users is not supported here")
    manifest = _given_manifest(line) or _reified(store, line, fetch)
    pod = pods.create()
    try:
        pod.move("prepare")
        _write(pod, store, manifest, overlay=not line.given.flag("no-overlay"))
    except BaseException:
        pod.unlock()  # an aborted prepare, which gc takes away
        raise
    return pod


def settings_of(line: Line) -> Settings:
    """Return what a pod is run with, beside its manifest."""
    given = line.given
    return Settings(
        hostname=given.text("hostname"),
        dns=given.texts("dns"),
        dns_domain=given.text("dns-domain"),
        dns_search=given.texts("dns-search"),
        dns_opt=given.texts("dns-opt"),
        hosts_entry=given.texts("hosts-entry"),
    )


def _given_manifest(line: Line) -> PodManifest | None:
    if "pod-manifest" not in line.given:
        return None
    if line.images:
        raise OptionError("--pod-manifest excludes images")
    return PodManifest.parse(Path(line.given.text("pod-manifest")).read_bytes())


def _reified(store: Store, line: Line, fetch: Fetch) -> PodManifest:
    if not line.images:
        raise OptionError("must provide at least one image")
    if line.given.flag("interactive") and len(line.images) > 1:
        raise OptionError("interactive option only supports one image")
    keys = [fetch(image) for image in line.images]
    return reified(line, [(key, store.manifest(key)) for key in keys])


def reified(line: Line, images: Sequence[tuple[ImageID, ImageManifest]]) -> PodManifest:
    """Return the pod manifest that a line means, nothing in it left to be looked up.

    Args:
        line: with its images.
        images: the key and the manifest of each of them.

    Raises:
        OptionError, PrepareError, ManifestError: as `prepare`.
    """
    volumes = tuple(volume(word) for word in line.given.texts("volume"))
    apps = tuple(_app(image, key, manifest, line) for image, (key, manifest) in zip(line.images, images, strict=True))
    names = [app.name for app in apps]
    for name in names:
        if names.count(name) > 1:
            raise PrepareError(f"multiple apps with name {name}")
    made = PodManifest(
        apps=apps,
        volumes=volumes,
        annotations=((MUTABLE, "false"),),
        ports=tuple(_port(word, apps) for word in line.given.texts("port")),
        ac_version=VERSION,
    )
    for mount in (mount for app in apps for mount in app.mounts):
        if made.volume(mount) is None:
            raise PrepareError(f'no volume for mount "{mount.volume}" at {mount.path}')
    return PodManifest.parse(made.record())  # every rule is checked, also those that a line cannot keep


def _app(image: Image, key: ImageID, manifest: ImageManifest, line: Line) -> RuntimeApp:
    mounts = {each.path: each for each in map(_mount, (*line.given.texts("mount"), *image.given.texts("mount")))}
    return RuntimeApp(
        name=image.given.text("name") or name_of(manifest.name),
        image_id=key,
        image_name=manifest.name,
        image_labels=manifest.labels,
        app=app_of(image, manifest, line),
        read_only_root_fs=image.given.flag("readonly-rootfs"),
        mounts=tuple(mounts.values()),
    )


def name_of(image: str) -> str:
    """Return the name that an app gets from its image's: the last part, as an AC name.

    Raises:
        ManifestError: nothing is left of it.
    """
    last = image.rpartition("/")[2]
    return ac_name(re.sub("[^a-z0-9]+", "-", last.lower()).strip("-"), "name")


def volume(word: str) -> Volume:
    """Read `NAME,kind=host,source=PATH,readOnly=true`; the name may be written `name=NAME`.

    Raises:
        OptionError: a part that a volume does not have, or a value that cannot be.
        ManifestError: a rule of appc that it breaks.
    """
    first, *more = word.split(",")
    told = _told([first if "=" in first else f"name={first}", *more], word, "volume")
    numbers, flags = {"uid", "gid"}, {"readOnly", "recursive"}
    if unknown := told.keys() - {"name", "kind", "source", "mode", *numbers, *flags}:
        raise OptionError(f'invalid argument "{word}" for --volume: unknown volume parameter "{min(unknown)}"')
    record: dict[str, object] = {}
    for name, value in told.items():
        if name in flags and value not in ("true", "false"):
            raise OptionError(f'invalid argument "{word}" for --volume: {name} is true or false')
        if name in numbers and not value.isdecimal():
            raise OptionError(f'invalid argument "{word}" for --volume: {name} is a number')
        record[name] = value == "true" if name in flags else int(value) if name in numbers else value
    try:
        return PodManifest.parse({"acKind": "PodManifest", "acVersion": VERSION, "volumes": [record]}).volumes[0]
    except ManifestError as error:
        raise OptionError(f'invalid argument "{word}" for --volume: {error.message.removeprefix("volumes[0].")}') from error


def _mount(word: str) -> Mount:
    """Read `volume=NAME,target=PATH`."""
    told = _told(word.split(","), word, "mount")
    if told.keys() != {"volume", "target"} or not told["target"].startswith("/"):
        raise OptionError(f'invalid argument "{word}" for --mount: volume=NAME,target=PATH')
    return Mount(told["volume"], told["target"])


def _told(words: Sequence[str], whole: str, option: str) -> dict[str, str]:
    told = dict(word.split("=", 1) for word in words if "=" in word)
    if len(told) != len(words):
        raise OptionError(f'invalid argument "{whole}" for --{option}: NAME=VALUE, joined by commas')
    return told


def _port(word: str, apps: Sequence[RuntimeApp]) -> ExposedPort:
    """Read `NAME:[IP:]HOSTPORT`, for a port that one of the apps has."""
    name, colon, rest = word.partition(":")
    address, _, number = rest.rpartition(":")
    if not colon or not number.isdecimal():
        raise OptionError(f'invalid argument "{word}" for --port: NAME:[IP:]HOSTPORT')
    found = [port for app in apps for port in (app.app.ports if app.app else ()) if port.name == name]
    if not found:
        raise PrepareError(f'port name "{name}" could not be found in any apps')
    return ExposedPort(name, int(number), address)


def _write(pod: Pod, store: Store, manifest: PodManifest, *, overlay: bool) -> None:
    """Write what stage 1 needs: the manifest, and for each app its image's manifest and the tree that lies ready in the store."""
    for app in manifest.apps:
        key = store.find(str(app.image_id))
        pod.write(f"appsinfo/{app.name}/manifest", serialized(store.manifest(key).record()))
        pod.write(f"appsinfo/{app.name}/treeStoreID", f"{store.tree_id(key)}\n")  # before: what a pod names stays in the store
        store.rendered(key)
    if overlay:
        pod.write("overlay-prepared", "")
    pod.stage1.mkdir(parents=True)
    pod.write("pod", serialized(manifest.record()))
