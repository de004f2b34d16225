"""Every view, with names that nobody expects: 80 columns, no escape codes, whole HTML, pictures that say what the text says."""

import base64
import random
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from types import MappingProxyType

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from show_states import BASH, BRIDGED, CGROUPS, CHANGE, CLOCK, EQUAL, IMAGE, LAYERS, NAMESPACES, PAIR, TRACE, TWIN, UNEQUAL, UNION

from labkit import show
from labkit.images.image import ImageParts
from labkit.images.oci import Descriptor, Execution, History, ImageConfig, Platform
from labkit.kernel.state import (
    CgroupState,
    Change,
    Difference,
    FileState,
    LinkState,
    NamespaceState,
    NetworkState,
    ProcessState,
    RouteState,
    UnionState,
)
from labkit.show.text import WIDTH, width
from labkit.trace import Operation, Trace

VOID = {"br", "img", "hr", "wbr"}
KEPT = {"div", "span", "table", "thead", "tbody", "tr", "td", "th", "details", "summary", "img", "br", "wbr"}
"""What the views are made of; an untrusted notebook keeps all of it."""


class Reader(HTMLParser):
    """Note the elements, what stays open, and the pictures."""

    def __init__(self, html):
        super().__init__()
        self.open, self.seen, self.images, self.attributes, self.data = [], set(), [], set(), []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.data.append(data)


def assert_sound(view):
    for line in view.text.split("\n"):
        assert width(line) <= WIDTH, line
        assert line.isprintable(), repr(line)
        assert line == line.rstrip()
    reader = Reader(view.html)
    assert reader.open == []
    assert reader.seen <= KEPT
    assert reader.attributes <= {"class", "style", "alt", "src", "width", "height"}
    assert view.html == "" or view.html.startswith('<div class="mathjax_ignore tex2jax_ignore"')
    for image in reader.images:
        assert image["alt"] == view.text
        root = ElementTree.fromstring(base64.b64decode(image["src"].partition("base64,")[2]))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {"svg", "title", "rect", "text", "path", "circle"}
        assert (root.get("width"), root.get("height")) == (image["width"], image["height"])


VIEWS = {
    "cell_report": lambda: show.cell_report(CHANGE, TRACE),
    "difference": lambda: show.difference(CHANGE),
    "operations": lambda: show.operations(TRACE),
    "notice": lambda: show.notice("passed", "title", ["a", "  b", "- c", "cause: d"]),
    "card": lambda: show.notice("card", "title", ["a", "", "- c"]),
    "table": lambda: show.table(["a", "b"], [["c", "d"]]),
    "cgroup_tree": lambda: show.cgroup_tree(CGROUPS, [CLOCK]),
    "process_table": lambda: show.process_table([CLOCK, TWIN], reference=BASH),
    "namespace_table": lambda: show.namespace_table(NAMESPACES),
    "network_picture": lambda: show.network_picture(BRIDGED),
    "pair": lambda: show.network_picture(PAIR),
    "union_stack": lambda: show.union_stack(UNION),
    "image_tree": lambda: show.image_tree(IMAGE),
    "an image without an index": lambda: show.image_tree(replace(IMAGE, index=None, listed=(), layers=LAYERS * 20)),
    "equal": lambda: show.contents_view(EQUAL),
    "unequal": lambda: show.contents_view(UNEQUAL),
    "no cgroups": lambda: show.cgroup_tree([], title="none"),
    "no processes": lambda: show.process_table([]),
    "no namespaces": lambda: show.namespace_table([]),
    "no networks": lambda: show.network_picture([]),
    "no branches": lambda: show.union_stack(UnionState("overlay", "/", ())),
    "no change": lambda: show.difference(Difference()),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_sound_and_the_same_each_time(name):
    view = VIEWS[name]()
    assert_sound(view)
    assert view == VIEWS[name]()
    assert view.text == str(view) == repr(view)
    assert view._repr_mimebundle_() == {"text/plain": view.text, "text/html": view.html}


def test_views_do_not_depend_on_the_order_in_which_things_come():
    shuffled = random.Random(7)
    for make, things in (
        (show.cgroup_tree, CGROUPS),
        (show.process_table, (BASH, CLOCK, TWIN)),
        (show.namespace_table, NAMESPACES),
        (show.network_picture, BRIDGED),
    ):
        for _ in range(5):
            assert make(shuffled.sample(things, len(things))) == make(things)


def test_pictures_name_no_pid():
    for view in (show.network_picture(PAIR), show.union_stack(UNION)):
        assert "pid" not in view.text


NASTY = st.one_of(
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            'a&b"',
            "'><img src=x>",
            "\x1b[31m",
            "a\nb",
            "]]>",
            "--",
            "x" * 300,
            "日本語" * 40,
            "\udcff\ufffe",
            "%s{}",
        ]
    ),
    st.text(min_size=1, max_size=40),
)
PATHS = st.lists(NASTY.map(lambda text: text.replace("/", "")), min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
PIDS = st.lists(st.integers(1, 1 << 22), max_size=6).map(tuple)
WORDS = st.dictionaries(NASTY, NASTY, max_size=3).map(MappingProxyType)
CHANGES = st.lists(
    st.builds(
        Change,
        st.one_of(NASTY, st.sampled_from(["cgroup", "link"])),
        NASTY,
        st.one_of(st.just(""), NASTY),
        st.none() | NASTY,
        st.none() | NASTY,
    ),
    max_size=12,
).map(tuple)
OPERATIONS = st.builds(Operation, NASTY, st.lists(st.tuples(NASTY, NASTY), max_size=2).map(tuple), st.lists(NASTY, max_size=2).map(tuple))
PROCESSES = st.lists(
    st.builds(
        ProcessState,
        pid=st.integers(1, 999),
        ppid=st.just(1),
        comm=NASTY,
        pid_inside=st.integers(0, 9),
        namespaces=st.dictionaries(st.sampled_from(["uts", "net", "user"]), st.integers(1, 9)).map(MappingProxyType),
        name=st.one_of(st.just(""), NASTY),
    ),
    max_size=30,
)
LINKS = st.lists(
    st.builds(
        LinkState,
        ifname=NASTY,
        index=st.integers(1, 99),
        kind=st.sampled_from(["veth", "bridge", "", "loopback"]),
        up=st.booleans(),
        operstate=st.sampled_from(["UP", "DOWN", "UNKNOWN"]),
        master=st.one_of(st.just(""), NASTY),
        peer=st.none() | st.tuples(NASTY, NASTY),
        addresses=st.lists(NASTY, max_size=6).map(tuple),
    ),
    max_size=14,
).map(tuple)
NETWORKS = st.lists(
    st.builds(
        NetworkState,
        name=NASTY,
        inode=st.integers(1, 99),
        links=LINKS,
        routes=st.lists(st.builds(RouteState, NASTY, NASTY, NASTY), max_size=8).map(tuple),
        rules=st.lists(NASTY, max_size=2).map(tuple),
    ),
    max_size=15,
)
UNIONS = st.builds(
    UnionState,
    fstype=NASTY,
    merged=PATHS,
    branches=st.lists(st.tuples(st.sampled_from(["upperdir", "lowerdir", "branch"]), PATHS), min_size=3, max_size=9).map(tuple),
    files=st.lists(
        st.builds(
            FileState,
            path=NASTY,
            layers=st.sampled_from([(0,), (1, 2), (0, 2), (2,)]),
            kind=st.sampled_from(["file", "directory", "symlink", "whiteout", "opaque"]),
            visible=st.booleans(),
            copied_up=st.booleans(),
        ),
        max_size=50,
    ).map(tuple),
)
DESCRIPTORS = st.builds(Descriptor, NASTY, st.sampled_from([each.digest for each in LAYERS]), st.integers(0, 1 << 40))
IMAGES = st.builds(
    ImageParts,
    NASTY,
    st.none() | DESCRIPTORS,
    st.lists(DESCRIPTORS, max_size=3).map(tuple),
    DESCRIPTORS,
    DESCRIPTORS,
    st.builds(
        lambda name, words, made: ImageConfig(Platform(name, name), (), Execution(tuple(words)), tuple(map(History, made))),
        NASTY,
        st.lists(NASTY, max_size=3),
        st.lists(NASTY, max_size=3),
    ),
    st.lists(DESCRIPTORS, max_size=15).map(tuple),
)
STRANGE = st.one_of(
    st.builds(show.image_tree, IMAGES),
    st.builds(
        lambda a, b, c, o: show.cell_report(Difference(a, b, c), Trace(o)), CHANGES, CHANGES, CHANGES, st.lists(OPERATIONS, max_size=4)
    ),
    st.builds(show.notice, NASTY, NASTY, st.lists(NASTY, max_size=4)),
    st.builds(show.notice, st.just("card"), NASTY, st.lists(NASTY, max_size=4)),
    st.builds(lambda rows, title: show.table(["a", "<b>"], rows, title=title), st.lists(st.tuples(NASTY, NASTY), max_size=70), NASTY),
    st.builds(
        show.cgroup_tree,
        st.lists(st.builds(CgroupState, st.sampled_from(["", "freezer"]), PATHS, PATHS, WORDS, PIDS), max_size=30),
        PROCESSES,
        NASTY,
    ),
    st.builds(show.process_table, PROCESSES, st.just(("uts", "net", "user")), st.none()),
    st.builds(
        show.namespace_table,
        st.lists(
            st.builds(
                NamespaceState,
                NASTY,
                st.integers(1, 99),
                PIDS,
                st.none() | st.integers(1, 9),
                st.none() | st.integers(0, 9),
                st.none() | NASTY,
            ),
            max_size=20,
        ),
        PROCESSES,
    ),
    st.builds(show.network_picture, NETWORKS),
    st.builds(show.union_stack, UNIONS),
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(STRANGE)
def test_no_name_breaks_a_view(view):
    assert_sound(view)


def test_names_are_shown_not_obeyed():
    evil = '<script>a("x")</script>'
    processes = [ProcessState(7, 1, evil)]
    networks = [NetworkState(evil, 1, (LinkState("a&b\"'", 1, "bridge"),))]
    for view in (
        show.process_table(processes),
        show.network_picture(networks),
        show.table([evil], [[evil]]),
        show.notice(evil, evil, [evil]),
    ):
        assert "<script" not in view.html
        assert evil in view.text
        assert "&lt;script&gt;" in view.html
        assert not re.search(r"\x1b", view.text)


def test_names_in_a_table_are_set_as_code_and_sentences_are_not():
    html = show.table(["v1", "note"], [["cpu.cfs_quota_us cpu.cfs_period_us", "max is a quota of -1"]]).html
    assert re.search(r"monospace[^>]*>cpu.cfs_quota_us cpu.cfs_period_us<", html)
    assert re.search(r"<td[^>]*>max is a quota of -1<", html)
