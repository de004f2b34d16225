"""A frame goes over the socket as what differs, and is said in text and in HTML alike; what is settled has nothing that is chance."""

import json
import re
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.course.live import _Drawn
from labkit.course.top import HELP, Playback, picture
from labkit.kernel.live.frame import (
    Contained,
    Frame,
    LayerFile,
    Layers,
    Member,
    Meter,
    Network,
    Pressure,
    Row,
    Traffic,
    apply,
    changed,
    difference,
)
from labkit.kernel.state import LinkState, NetworkState, RouteState
from labkit.show.frames import TITLES, Scope, sections, whole
from labkit.show.news import news

GROUP = Meter("/lab-2.1/mycgroup", (("freezer", "/sys/fs/cgroup/freezer/lab-2.1/mycgroup"),), (812, 813), "frozen", 0.25, 0.5,
              10 << 20, 64 << 20, 2, 20, 4096.0, Pressure(12.0, 0.0, 3.0))  # fmt: skip
HOME = Meter("/lab-2.1", (("", "/sys/fs/cgroup/unified/lab-2.1"),))
OTHER = Meter("/system.slice/cron.service", pids=(99,), state="running", cpu=1.0)
CLOCK = Member(812, 1, "bash", (("mount", 4026531841), ("net", 4026532201)), ("net",))
CHILD = Member(813, 812, "sleep", (("mount", 4026531841), ("net", 4026532201)), ("net",))
CRON = Member(99, 1, "cron", (("mount", 4026531841), ("net", 4026531840)))
VETH = LinkState("veth1", 5, "veth", up=True, operstate="UP", peer=("namespace1", "veth2"), addresses=("192.168.1.1/24",))
ETH = LinkState("eth0", 2, up=True, operstate="UP", addresses=("192.0.2.2/24",))
HOST = Network(NetworkState("host", 4026531840, (ETH, VETH), (RouteState("default", "192.0.2.1", "eth0"),)),
               (Traffic("eth0", "up", 1500.0, 20.0), Traffic("veth1", "no carrier")))  # fmt: skip
LAYERS = Layers("/var/lib/labkit/labs/2.1/merged", ("/a", "/b"), "/var/lib/labkit/labs/2.1/upper",
                (LayerFile("log", 4096, written=True), LayerFile("gone", 0, "whiteout")), 12)  # fmt: skip
WEB = Contained(812, "web", "nginx", "/lab-2.1/mycgroup", ("pid", "net"))


def rows(*of: Row) -> MappingProxyType[str, Row]:
    return MappingProxyType({row.key: row for row in of})


FRAME = Frame(7, 1_700_000_000.0, 0.1, 0.002, ("inotify",), rows(HOME, GROUP, OTHER), rows(CRON, CLOCK, CHILD), rows(HOST), rows(LAYERS),
              rows(WEB))  # fmt: skip


def test_a_frame_is_made_again_of_what_differs() -> None:
    first = apply(Frame(), difference(Frame(), FRAME))
    assert first == FRAME
    thawed = replace(GROUP, state="running", cpu=None)
    second = replace(FRAME, number=8, cgroups=rows(HOME, thawed), processes=rows(CRON))
    line = difference(FRAME, second)
    assert apply(first, line) == second
    told = json.loads(line)
    assert [row["path"] for row in told["cgroups"][0]] == ["/lab-2.1/mycgroup"]  # HOME is the same record
    assert told["cgroups"][1] == ["/system.slice/cron.service"]
    assert "networks" not in told
    assert changed(FRAME, second) == ("cgroups", "processes")


@settings(max_examples=30)
@given(st.lists(st.sampled_from([HOME, GROUP, OTHER, replace(GROUP, state="running"), replace(OTHER, cpu=0.0)]), max_size=4), st.data())
def test_any_two_frames_differ_by_what_apply_takes(some: list[Meter], data: st.DataObject) -> None:
    others = data.draw(st.lists(st.sampled_from([HOME, GROUP, OTHER]), max_size=3))
    before, after = Frame(1, cgroups=rows(*some)), Frame(2, cgroups=rows(*others))
    assert apply(apply(Frame(), difference(Frame(), before)), difference(before, after)) == after


def test_the_text_has_80_columns_and_every_fact() -> None:
    text = whole(sections(FRAME)).text
    assert max(map(len, text.splitlines())) <= 80
    for fact in ("■ frozen", "25%/50%", "10M/64M", "2/20", "4K", "12% cpu", "bash 812", "◐ no carrier", "1.46K/s", "✎ being written",
                 "whiteout", "… 10 more files in the upper layer", "web", "pid net", *TITLES.values()):  # fmt: skip
        assert fact in text


def test_the_html_says_what_the_text_says() -> None:
    for name, view in sections(FRAME).items():
        page = re.sub(r"\s+", "", re.sub(r"<img[^>]*alt=\"([^\"]*)\"[^>]*>", r"\1", view.html))
        page = re.sub(r"<[^>]*>|&nbsp;", "", page)
        for word in set(re.findall(r"[\w./%✎■◐●▶]+", view.text)) - {"+1"}:
            assert word.strip(".") in page, (name, word)


def test_a_view_in_a_saved_notebook_has_no_script_and_no_button() -> None:
    html = whole(sections(FRAME)).html
    assert not re.search(r"<(script|style|button)\b|\son\w+=", html)


def test_names_from_outside_are_escaped() -> None:
    group = replace(GROUP, path='/lab-2.1/<b>"')
    evil = replace(FRAME, processes=rows(replace(CLOCK, comm='<img src=x onerror="x">')), cgroups=rows(group))
    for scope in (Scope(), Scope(refs=True)):
        html = whole(sections(evil, scope)).html
        assert "<img src=x" not in html
        assert "<b>" not in html


def test_a_settled_view_has_no_counter_and_nothing_of_others() -> None:
    scope = Scope("lab-2.1", {812: "clock"}, settled=True, networks={4026531840: frozenset({"veth1"})}, folder="/var/lib/labkit/labs/2.1")
    one = whole(sections(FRAME, scope))
    busier = replace(GROUP, cpu=0.9, memory=1, tasks=1, io=0.0, pressure=None, pids=(812, 900))
    idle = replace(HOST, traffic=(Traffic("eth0", "down"), Traffic("veth1", "no carrier", 7.0, 7.0)))
    other = replace(FRAME, at=FRAME.at + 5, cgroups=rows(HOME, busier), processes=rows(CLOCK), networks=rows(idle))
    assert one.text == whole(sections(other, scope)).text
    assert "mycgroup  ■ frozen  clock, memory.max = 64M" in one.text
    assert "$LAB/merged" in one.text
    assert not re.search(r"cron|812|813|eth0", one.text)


def test_a_lab_sees_its_own_cgroups_alone() -> None:
    text = sections(FRAME, Scope("lab-2.1"), ["cgroups"])["cgroups"].text
    assert "mycgroup" in text
    assert "cron.service" not in text


def test_an_empty_machine_is_said_in_words() -> None:
    assert [view.text for view in sections(Frame()).values()] == [
        "no cgroups here yet", "no process has a namespace of its own\n0 processes in the namespaces of process 1", "no links",
        "no overlay is mounted", "no containers run",
    ]  # fmt: skip


def test_news_are_the_changes_of_state() -> None:
    thawed = replace(FRAME, number=8, cgroups=rows(HOME, replace(GROUP, state="running", cpu=0.0)), containers=rows())
    up = replace(HOST, traffic=(Traffic("eth0", "up", 9.0, 9.0), Traffic("veth1", "up")))
    assert news(FRAME, thawed, Scope("lab-2.1")) == ("cgroup lab-2.1/mycgroup: frozen → running", "container web has ended")
    assert news(FRAME, replace(FRAME, networks=rows(up))) == ("link veth1 in host: no carrier → up",)
    assert news(Frame(), FRAME) == ()


@pytest.fixture
def playback() -> Playback:
    """Return the playback of 90 seconds, a frame a second."""
    one = Playback()
    for second in range(90):
        one.take(replace(FRAME, number=second + 1, at=FRAME.at + second), Scope())
    return one


def test_a_minute_is_kept_and_stepped_through(playback: Playback) -> None:
    assert len(playback.frames) == 61
    assert playback.state == "live, 10 a second"
    playback.key("p")
    for _ in range(3):
        playback.key("left")
    assert (playback.shown.number, playback.state) == (87, "paused, 3 s back")
    playback.key("right")
    assert playback.state == "paused, 2 s back"
    for _ in range(100):
        playback.key("left")
    assert playback.state == "paused, 60 s back"
    playback.key("p")
    assert playback.shown.number == 90


def test_stepping_to_the_end_goes_on_live(playback: Playback) -> None:
    playback.key("left")
    playback.key("right")
    assert playback.at is None


def test_the_terminal_fits_80_columns_and_its_height(playback: Playback) -> None:
    for height in (10, 24, 60):
        lines = picture(playback, Scope(), height).splitlines()
        assert len(lines) == height
        assert max(map(len, lines)) <= 80
        assert lines[-1] == HELP
    playback.key("3")
    assert "Network" in picture(playback, Scope(), 24)
    assert "Control groups" not in picture(playback, Scope(), 24)


def test_a_page_gets_each_picture_once_and_each_part_when_it_changed() -> None:
    drawn = _Drawn()
    html, images = drawn.fresh(lambda: sections(FRAME))
    assert set(html) == set(TITLES)
    (key,) = images
    assert f"{{{{{key}}}}}" in html["networks"]
    assert "<img" not in html["networks"]
    assert drawn.fresh(lambda: sections(FRAME)) == ({}, {})
    busier = replace(HOST, traffic=(Traffic("eth0", "up", 9e6, 20.0), Traffic("veth1", "no carrier")))
    html, images = drawn.fresh(lambda: sections(replace(FRAME, networks=rows(busier))))
    assert (list(html), images) == (["networks"], {})
