"""What each stand-in is made of."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit.images import elf
from labkit.images.debian import RELEASE, SUITE, Bench
from labkit.images.oci import Execution
from labkit.kernel import commands

_DOCS = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")


@dataclass(frozen=True)
class Recipe:
    """How a stand-in is made.

    Attributes:
        title: what it is, in words.
        fill: puts its files into an empty tree, or, where it has a base, changes the base's tree.
        execution: how it is run.
        base: the recipe whose layers lie below.
    """

    title: str
    fill: Callable[[Bench, Path], None]
    execution: Execution
    base: str = ""


def _write(tree: Path, path: str, text: str | bytes, mode: int = 0o644) -> None:
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)  # it may be a link
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    file.chmod(mode)


def _os_release(tree: Path, name: str, what: str, **more: str) -> None:
    """Say in os-release(5) what it really is, and that it is a stand-in."""
    fields = {"PRETTY_NAME": f"{what}, stand-in of {name}", "NAME": what, "ID": "debian", "VERSION_ID": "13", **more}
    fields |= {"VERSION_CODENAME": SUITE, "LABKIT_STAND_IN": name}
    _write(tree, "etc/os-release", "".join(f'{key}="{value}"\n' for key, value in fields.items()))


_DIRECTORIES = {"bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "mnt": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755}
_DIRECTORIES |= {"sbin": 0o755, "srv": 0o755, "sys": 0o555, "tmp": 0o1777, "usr/bin": 0o755, "usr/sbin": 0o755, "var/log": 0o755}
_DIRECTORIES |= {"usr": 0o755, "var": 0o755, "var/spool": 0o755, "var/tmp": 0o1777, "opt": 0o755, "usr/local/bin": 0o755}
_ACCOUNTS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUPS = "root:x:0:\ndaemon:x:1:\nbin:x:2:\nadm:x:4:\ntty:x:5:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n"


def _busybox(bench: Bench, tree: Path, name: str) -> None:
    for directory, mode in _DIRECTORIES.items():
        (tree / directory).mkdir(parents=True, exist_ok=True)
        (tree / directory).chmod(mode)
    program = bench.debian("extract", ("busybox-static",)) / "usr/bin/busybox"
    shutil.copyfile(program, tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o755)
    for path in commands.run([program, "--list-full"]).stdout.split():
        if not (tree / path).exists():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).symlink_to("/bin/busybox")
    _write(tree, "etc/passwd", _ACCOUNTS)
    _write(tree, "etc/group", _GROUPS)
    _write(tree, "etc/shadow", "root:*::0:::::\nnobody:!::0:::::\n", 0o640)
    _write(tree, "etc/profile", "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\numask 022\n")
    version = commands.run([program]).stdout.split()[1].removeprefix("v")
    _os_release(tree, name, f"BusyBox {version} of {RELEASE}")


def _alpine(bench: Bench, tree: Path) -> None:
    _busybox(bench, tree, "alpine")


def _plain_busybox(bench: Bench, tree: Path) -> None:
    _busybox(bench, tree, "busybox")


HELLO = """
Hello from Docker!
This greeting was printed by a program of a few hundred bytes, alone in its container.

What happened until you could read it:
 1. The client asked the daemon to run the image "hello-world".
 2. The daemon had none, so it pulled one from a registry: here the lab's own, on this machine.
    It is labkit's stand-in of the real hello-world image, not the real one.
 3. The daemon made a container of the image and started its program, which wrote these lines.
 4. The daemon passed them on to the client, and the client to your terminal.

Next, something larger:
 $ docker run -it alpine sh

"""


def _hello(bench: Bench, tree: Path) -> None:
    _write(tree, "hello", elf.program(HELLO, bench.architecture), 0o755)
    _os_release(tree, "hello-world", "One program and nothing else")


def _pause(bench: Bench, tree: Path) -> None:
    program = bench.debian("extract", ("catatonit",)) / "usr/bin/catatonit"
    _write(tree, "pause", program.read_bytes(), 0o755)
    _os_release(tree, "pause", f"catatonit of {RELEASE}")


_SOURCES = """\
Types: deb
URIs: http://deb.debian.org/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: trixie-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
_MINE = ("etc/resolv.conf", "etc/hostname", "etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap", "var/lib/systemd/catalog")
_EMPTIED = ("dev", "run", "tmp", "var/log", "var/cache/apt", "var/cache/ldconfig", "var/cache/debconf", "var/lib/apt/lists", "var/tmp")


def _moved(made: Path, tree: Path) -> None:
    """Let `made` be the tree, without what belongs to the machine or the moment in which it was made."""
    for path in _MINE:
        (made / path).unlink(missing_ok=True)
    for path in _EMPTIED:
        if (made / path).is_dir():
            for each in (made / path).iterdir():
                shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
    tree.rmdir()
    made.rename(tree)


def _debian(bench: Bench, tree: Path) -> None:
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _DOCS]
    options = (*excluded, "--dpkgopt=path-include=/usr/share/doc/*/copyright", "--dpkgopt=force-unsafe-io")  # as in the real image
    made = bench.debian("minbase", ("adduser",), *options)
    _moved(made, tree)
    _write(tree, "etc/apt/sources.list.d/debian.sources", _SOURCES)
    version = (tree / "etc/debian_version").read_text().strip()
    _os_release(tree, "debian", f"Debian GNU/Linux {version} ({SUITE})", HOME_URL="https://www.debian.org/")


_SITE = """\
server {
    listen 80;
    server_name localhost;

    location / {
        root /usr/share/nginx/html;
        index index.html index.htm;
    }

    error_page 500 502 503 504 /50x.html;
    location = /50x.html {
        root /usr/share/nginx/html;
    }
}
"""


def _nginx(bench: Bench, tree: Path) -> None:
    (below,) = bench.base
    put = f'cp -a {shlex.quote(str(below))}/. "$1"'
    _moved(bench.debian("custom", ("nginx",), "--skip=check/empty", f"--setup-hook={put}"), tree)
    _write(tree, "etc/nginx/conf.d/default.conf", _SITE)
    (tree / "etc/nginx/sites-enabled/default").unlink()
    (tree / "var/log/nginx").mkdir(exist_ok=True)
    (tree / "var/log/nginx/access.log").symlink_to("/dev/stdout")
    (tree / "var/log/nginx/error.log").symlink_to("/dev/stderr")
    version = (tree / "etc/debian_version").read_text().strip()
    _os_release(tree, "nginx", f"nginx on Debian GNU/Linux {version} ({SUITE})", HOME_URL="https://www.debian.org/")


RECIPES = {
    "busybox": Recipe(f"busybox-static of {RELEASE} with a link for each applet", _plain_busybox, Execution(cmd=("sh",))),
    "alpine": Recipe(f"busybox-static of {RELEASE} with a link for each applet, without apk", _alpine, Execution(cmd=("/bin/sh",))),
    "hello-world": Recipe("one static program that greets", _hello, Execution(cmd=("/hello",))),
    "pause": Recipe(f"catatonit of {RELEASE}, waiting", _pause, Execution(entrypoint=("/pause", "-P"), user="65535:65535")),
    "debian": Recipe(f"{RELEASE}, apt and the essential packages", _debian, Execution(cmd=("bash",))),
    "nginx": Recipe(
        f"nginx of {RELEASE}",
        _nginx,
        Execution(cmd=("nginx", "-g", "daemon off;"), exposed_ports=("80/tcp",), stop_signal="SIGQUIT"),
        base="debian",
    ),
}
