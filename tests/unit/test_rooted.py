"""A path inside a root directory, and a program in it, as a process there would find them."""

import errno
from pathlib import Path

import pytest

from labkit.errors import SyscallError
from labkit.kernel import rooted
from labkit.kernel.processes.plan import Plan


def program(path: Path, text: str = "\x7fELF", mode: int = 0o755) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def test_links_and_dots_lead_inside_the_root_and_never_out(tmp_path: Path) -> None:
    for name, target in {"absolute": "/etc/passwd", "up": "../../../../etc/passwd", "chain": "absolute", "bin": "usr/bin"}.items():
        (tmp_path / name).symlink_to(target)
    for path in ("absolute", "up", "chain", "/../../etc/passwd", "./etc//passwd"):
        assert rooted.resolve(tmp_path, path) == tmp_path / "etc/passwd"
    assert rooted.resolve(tmp_path, "/bin/sh") == tmp_path / "usr/bin/sh"


def test_links_in_a_ring_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("/a")
    with pytest.raises(SyscallError) as raised:
        rooted.resolve(tmp_path, "a")
    assert raised.value.errno == errno.ELOOP


def test_a_program_is_found_where_path_says_and_through_links(tmp_path: Path) -> None:
    program(tmp_path / "usr/bin/busybox")
    (tmp_path / "bin").symlink_to("/usr/bin")
    (tmp_path / "usr/bin/sh").symlink_to("/bin/busybox")
    assert rooted.program(tmp_path, "sh") == rooted.program(tmp_path, "/bin/sh") == tmp_path / "usr/bin/busybox"


@pytest.mark.parametrize(
    ("name", "number", "cause"),
    [
        ("nosuch", errno.ENOENT, f"there is no nosuch in {rooted.PATH}"),
        ("/bin/nosuch", errno.ENOENT, "there is no file /bin/nosuch"),
        ("/bin/script", errno.ENOENT, "/bin/script is there, its script interpreter /bin/inside is not"),
        ("/bin/plain", errno.EACCES, None),
    ],
)
def test_what_execve_would_refuse_has_its_cause(tmp_path: Path, name: str, number: int, cause: str | None) -> None:
    program(tmp_path / "bin/script", "#!/bin/inside\n")
    program(tmp_path / "bin/plain", mode=0o644)
    with pytest.raises(SyscallError) as raised:
        rooted.program(tmp_path, name)
    assert raised.value.errno == number
    assert raised.value.cause == cause or (cause is None and "no execute permission" in str(raised.value.cause))


def test_chroot_is_typed_and_called_as_it_is(tmp_path: Path) -> None:
    plan = Plan(("ls", "/"), name="look", chroot=str(tmp_path))
    plan.check()
    assert plan.shell(background=False) == f"chroot {tmp_path} ls /"
    assert plan.calls()[-3:] == (f'chroot("{tmp_path}")', 'chdir("/")', 'execve("ls")')
