"""A pod that judges its executor: two apps, a volume between them, handlers, environment, metadata, signatures.

What it asks for is what the specification's own validator asks for.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from trial_pods import Trial, interleaved, main

from labkit.appc import aci
from labkit.appc.image_manifest import ImageManifest

VALIDATOR = r"""#!/bin/sh
role=$1
fail() { echo "$role: $*"; exit 1; }
same() { [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"; }
await() { n=0; until [ -e "$1" ]; do n=$((n + 1)); [ $n -lt 50 ] || fail "no $1 after 5 s"; sleep 0.1; done; }
mounted() { grep -q " $1 rw" /proc/self/mountinfo || fail "$1 is no mount point, or cannot be written"; }
ask() { wget -q -O - --header 'Metadata-Flavor: AppContainer' "$AC_METADATA_URL/acMetadata/v1/$1" || fail "no answer for $1"; }
post() { path=$1; wget -q -O - --header 'Metadata-Flavor: AppContainer' --post-data "$2" "$AC_METADATA_URL/acMetadata/v1/$path"; }
kind() {
    found=$(wget -S -O /dev/null --header 'Metadata-Flavor: AppContainer' "$AC_METADATA_URL/acMetadata/v1/$1" 2>&1 \
        | sed -n 's/^ *Content-Type: //p' | tr -d '\r')
    same "the type of $1" "$found" "$2"
}
metadata() {
    same uuid "$(ask pod/uuid)" "$(hostname | sed s/rkt-//)"
    ask pod/manifest | grep -q '"acKind": *"PodManifest"' || fail "no pod manifest"
    ask pod/annotations | grep -q '"name": *"'"$OF_POD"'"' || fail "no annotation of the pod"
    ask "apps/$AC_APP_NAME/annotations" | grep -q '"value": *"'"$OF_APP"'"' || fail "no annotation of the app"
    ask "apps/$AC_APP_NAME/image/manifest" | grep -q '"acKind": *"ImageManifest"' || fail "no image manifest"
    ask "apps/$AC_APP_NAME/image/id" | grep -Eq '^sha512-[0-9a-f]+$' || fail "no image id"
    kind pod/uuid 'text/plain; charset=us-ascii'
    kind pod/manifest application/json
    signature=$(post pod/hmac/sign content=hello | sed 's/+/%2B/g; s/=/%3D/g; s,/,%2F,g')
    uuid=$(ask pod/uuid)
    post pod/hmac/verify "content=hello&uuid=$uuid&signature=$signature" || fail "its signature is not its own"
    post pod/hmac/verify "content=other&uuid=$uuid&signature=$signature" 2> /dev/null && fail "a wrong signature is right"
    return 0
}
same AC_APP_NAME "$AC_APP_NAME" "${2:-main}"
same PATH "$PATH" /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
same IN_VALIDATOR "$IN_VALIDATOR" correct
same "working directory" "$(pwd)" /opt/work
case $role in
    prestart) [ ! -e /prestart ] || fail "the root is not new"; mounted /db; echo done > /prestart ;;
    main)
        [ -e /prestart ] || fail "pre-start had another root"
        mounted /db
        date +%s > /db/.main && mv /db/.main /db/main  # whole or not at all: the other one waits for it
        await /db/sidekick
        metadata
        echo done > /main ;;
    sidekick)
        [ ! -e /prestart ] || fail "the root is another app's"
        mounted /db
        await /db/main
        [ $(( $(date +%s) - $(cat /db/main) )) -le 5 ] || fail "more than 5 s after main"
        echo done > /db/sidekick ;;
    poststop) [ -e /main ] || fail "post-stop came before the end of main, or had another root" ;;
esac
echo "$role OK"
"""


@pytest.fixture
def trial(own_state: Path, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    made = Trial(own_state / tmp_path_factory.mktemp("rkt").name)
    made.write("bin/validate", VALIDATOR, 0o755)
    return made


def apps(of_pod: str, of_app: str) -> dict[str, dict[str, object]]:
    variables = {"IN_VALIDATOR": "correct", "OF_POD": of_pod, "OF_APP": of_app}
    common = {
        "workingDirectory": "/opt/work",
        "environment": [{"name": name, "value": value} for name, value in variables.items()],
        "mountPoints": [{"name": "database", "path": "/db"}],
    }
    handlers = [{"name": "pre-start", "exec": ["/bin/validate", "prestart"]}, {"name": "post-stop", "exec": ["/bin/validate", "poststop"]}]
    return {
        "main": main("/bin/validate", "main", eventHandlers=handlers, **common),
        "sidekick": main("/bin/validate", "sidekick", "sidekick", **common),
    }


@pytest.mark.parametrize("net", ["", "none", "host"])
@pytest.mark.parametrize("overlay", [True, False])
def test_the_validator_finds_nothing_wrong(trial: Trial, net: str, overlay: bool) -> None:
    trial.image["annotations"] = [{"name": "a", "value": "image"}]  # type: ignore[assignment]
    options = {"annotations": [{"name": "a", "value": "pod"}]}
    volumes, annotations = [{"name": "database", "kind": "empty"}], [{"name": "owner", "value": "me"}]
    pod = trial.pod(apps("owner", "pod"), overlay=overlay, options=options, volumes=volumes, annotations=annotations)
    done = trial.run(pod, net, "m")
    lines = done.stdout.splitlines()
    assert (interleaved(lines, "main"), interleaved(lines, "sidekick")) == (["prestart OK", "main OK", "poststop OK"], ["sidekick OK"])
    assert done.returncode == 0
    assert pod.exit_codes == {"main": 0, "sidekick": 0}


def test_the_validator_by_its_own_command_line(trial: Trial, tmp_path: Path) -> None:
    for name, app in apps("coreos.com/rkt/stage1/mutable", "image").items():
        annotations = [{"name": "a", "value": "image"}]
        record = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": f"example.com/{name}", "app": app, "annotations": annotations}
        aci.build(ImageManifest.parse(record), trial.tree, tmp_path / f"{name}.aci")
    words = ["run", "--insecure-options=image", "--mds-register", "--volume", "database,kind=empty"]
    argv = [sys.executable, "-m", "labkit.appc", f"--dir={trial.data}", *words, str(tmp_path / "main.aci"), str(tmp_path / "sidekick.aci")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    assert (interleaved(lines, "main"), interleaved(lines, "sidekick")) == (["prestart OK", "main OK", "poststop OK"], ["sidekick OK"])
    assert done.returncode == 0
    subprocess.run([*argv[:4], "gc", "--grace-period=0s"], capture_output=True, timeout=120, check=True)
