"""The words of `rkt run`."""

import pytest

from labkit.appc.options import GLOBAL, PREPARE, RUN, OptionError, described, parse

ALL = {**RUN, **GLOBAL}


def test_options_after_an_image_are_its_own() -> None:
    line = parse(["docker://nginx", "registry-1.docker.io/library/busybox:latest", "--name=bzbx"], ALL)
    assert [image.text for image in line.images] == ["docker://nginx", "registry-1.docker.io/library/busybox:latest"]
    assert [image.given.text("name") for image in line.images] == ["", "bzbx"]


def test_arguments_end_at_three_hyphens() -> None:
    words = "worker --exec /bin/ov -- --loglevel verbose -- x --- syncer --exec=/bin/s2 -- --interval 30s".split()
    worker, syncer = parse(words, ALL).images
    assert (worker.given.text("exec"), worker.arguments) == ("/bin/ov", ("--loglevel", "verbose", "--", "x"))
    assert (syncer.given.text("exec"), syncer.arguments) == ("/bin/s2", ("--interval", "30s"))


def test_a_mount_before_all_images_is_for_all_of_them() -> None:
    line = parse(["--mount", "volume=a,target=/a", "one", "--mount=volume=b,target=/b", "two"], ALL)
    assert line.given.texts("mount") == ("volume=a,target=/a",)
    assert [image.given.texts("mount") for image in line.images] == [("volume=b,target=/b",), ()]


def test_an_option_of_the_pod_may_stand_anywhere() -> None:
    line = parse(["one", "--net=none", "--volume", "v,kind=empty", "--interactive", "--insecure-options=image", "--dir", "/x"], ALL)
    assert (line.given.text("net"), line.given.texts("volume"), line.given.flag("interactive")) == ("none", ("v,kind=empty",), True)
    assert (line.given.text("insecure-options"), line.given.text("dir")) == ("image", "/x")


def test_flags_take_a_value_only_after_an_equals_sign() -> None:
    line = parse(["--net", "one", "--no-overlay=true", "--interactive=0", "--readonly-rootfs", "two"], ALL)
    assert [image.text for image in line.images] == ["one", "two"]
    assert (line.given.text("net"), line.given.flag("no-overlay"), line.given.flag("interactive")) == ("default", True, False)
    assert "quiet" not in line.given
    assert line.images[0].given.flag("readonly-rootfs")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--frobnicate", "one"], "unknown flag: --frobnicate"),
        (["-x"], "unknown shorthand flag: -x"),
        (["one", "--exec"], "flag needs an argument: --exec"),
        (["--exec", "/bin/sh", "one"], "--exec must follow an image"),
        (["--", "one"], "-- must follow an image"),
        (["---"], "--- must follow an image"),
        (["--interactive=maybe"], 'invalid argument "maybe" for --interactive'),
    ],
)
def test_a_wrong_line_is_refused_with_its_word(words: list[str], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        parse(words, ALL)


def test_prepare_knows_nothing_of_networks() -> None:
    with pytest.raises(OptionError, match="unknown flag: --net"):
        parse(["--net=none", "one"], PREPARE)


def test_every_option_is_described() -> None:
    assert all(text for _, text in described(ALL))
    assert ("--interactive", "the one app has this terminal") in described(ALL)
