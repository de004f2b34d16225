"""Pictures of cgroups, processes, namespaces, networks and unions."""

import base64
import re
from dataclasses import replace
from types import MappingProxyType

from show_states import BASH, BRIDGED, CGROUPS, CLOCK, FREEZER, HOST, NAMESPACES, PAIR, TWIN, UNION

from labkit.kernel.state import CgroupState, FileState, LinkState, NamespaceState, NetworkState, ProcessState, UnionState
from labkit.show import cgroup_tree, namespace_table, network_picture, process_table, union_stack
from labkit.show.cgroups import size
from labkit.show.processes import letter


def svg(view):
    return base64.b64decode(re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', view.html)[1]).decode()


def test_a_tree_for_each_hierarchy():
    assert cgroup_tree(CGROUPS, [CLOCK, TWIN, BASH], "cgroups of lab 2.1").text.split("\n") == [
        "cgroups of lab 2.1",
        "cgroup2 (v2)  /sys/fs/cgroup/unified",
        "└─ lab-2.1",
        "   │  cgroup.subtree_control = memory pids",
        "   └─ a                       ■ frozen  pid 7",
        "         cgroup.freeze = 1",
        "         memory.max = 100000",
        "         pids.max = 20",
        "freezer (v1)  /sys/fs/cgroup/freezer",
        "└─ lab-2.1",
        "   ├─ mycgroup                ■ frozen  clock (pid 4711), twin (pid 4720)",
        "   │     freezer.state = FROZEN",
        "   └─ other                   ▶ running  this notebook (pid 100)",
        "memory (v1)  /sys/fs/cgroup/memory",
        "└─ lab-2.1/mycgroup           clock (pid 4711)",
        "      memory.limit_in_bytes = 64M",
    ]


def test_what_a_frozen_cgroup_holds_is_not_called_running():
    frozen, thawed = MappingProxyType({"cgroup.freeze": "1"}), MappingProxyType({"cgroup.freeze": "0"})
    text = cgroup_tree([CgroupState("", "/a", "/cg/a", frozen), CgroupState("", "/a/b", "/cg/a/b", thawed, (1,))]).text
    assert "■ frozen above  pid 1" in text
    assert "running" not in text


def test_sizes_are_whole_units_or_the_kernels_own_number():
    assert size("memory.max", "67108864") == "64M"
    assert size("memory.max", str(1 << 31)) == "2G"
    assert size("memory.max", "67108865") == "67108865"
    assert size("pids.max", "67108864") == "67108864"
    assert size("memory.limit_in_bytes", "9223372036854771712") == "9223372036854771712 (no limit)"


def test_a_thousand_cgroups_keep_the_labs_own_in_sight():
    many = [CgroupState("freezer", f"/c{number}", f"{FREEZER}/c{number}") for number in range(1000)]
    text = cgroup_tree([CgroupState("freezer", "/", FREEZER), *many, CgroupState("freezer", "/lab-2.1", f"{FREEZER}/lab-2.1")]).text
    assert "lab-2.1" in text
    assert text.endswith("… 989 more cgroups")
    assert len(text.split("\n")) == 15


def test_a_deep_and_wide_tree_is_cut_with_a_count():
    many = [CgroupState("", f"/a{one}/b{two}", f"/cg/a{one}/b{two}") for one in range(10) for two in range(100)]
    many += [CgroupState("", f"/a{one}", f"/cg/a{one}") for one in range(10)]
    lines = cgroup_tree(many).text.split("\n")
    assert len(lines) <= 83
    assert lines[-1] == "… 935 more cgroups in all"


def test_the_same_letter_is_the_same_namespace():
    assert process_table([TWIN, CLOCK], reference=BASH).text.split("\n")[:5] == [
        "process                     mount  uts  ipc  net  pid  user  cgroup  time",
        "──────────────────────────  ─────  ───  ───  ───  ───  ────  ──────  ────",
        "this notebook (pid 100)     A      A    A    A    A    A     A       A",
        "clock (pid 4711, 1 inside)  [B]    [B]  A    A    [B]  A     A       A",
        "twin (pid 4720)             A      [B]  A    [B]  A    A     A       A",
    ]


def test_a_kind_that_could_not_be_read_says_so():
    text = process_table([replace(CLOCK, namespaces=MappingProxyType({"uts": 1}))], kinds=("uts", "pid")).text
    assert text.split("\n")[2] == "clock (pid 4711, 1 inside)  A    ?"
    assert "?: the kernel did not let us read it" in text


def test_five_hundred_processes_collapse_to_those_that_differ():
    crowd = [ProcessState(1000 + number, 1, "sleep", start=number, namespaces=HOST) for number in range(500)]
    lines = process_table([*crowd, CLOCK, TWIN], reference=BASH).text.split("\n")
    assert len(lines) < 12
    assert "… 500 more processes, each in the namespaces of one that is shown" in lines


def test_letters_go_on_after_z():
    assert [letter(number) for number in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]


def test_namespaces_say_what_holds_them():
    lines = namespace_table(NAMESPACES, [CLOCK]).text.split("\n")
    assert lines[0].split("  ")[0] == "namespace"
    assert "uts:[4026532001]     clock (pid 4711) and 1 more  user:[4026531835]" in lines
    assert "net:[4026532009]     /run/netns/namespace1        user:[4026531835]" in lines
    assert "user:[4026531835]    3 processes                  user:[4026531835], uid 0" in lines


def test_fifty_namespaces_of_a_kind_are_counted():
    text = namespace_table([NamespaceState("net", number, (number,)) for number in range(1, 51)]).text
    assert "… 42 more net namespaces" in text
    assert len(text.split("\n")) < 15


def test_a_veth_pair_names_both_ends_in_both_places():
    lines = network_picture(PAIR).text.split("\n")
    assert lines[lines.index("namespace1") + 1 :] == [
        "  ● up    veth1  192.168.1.1/24  veth to veth2 in namespace2",
        "  ○ down  lo                     loopback",
        "  route  192.168.1.0/24 dev veth1",
        "",
        "namespace2",
        "  ○ down  veth2  192.168.1.2/24  veth to veth1 in namespace1",
        "  ○ down  lo                     loopback",
    ]
    for word in ("namespace1", "veth1", "192.168.1.1/24", "namespace2", "veth2", "192.168.1.2/24", ">up<", ">down<"):
        assert word in svg(network_picture(PAIR))


def test_a_pair_is_one_cable_dashed_while_an_end_is_down():
    up = [replace(one, links=tuple(replace(link, up=True, operstate="UP") for link in one.links)) for one in PAIR]
    cables = [re.findall(r'<path d="M[^"]* C[^>]*>', svg(network_picture(networks))) for networks in (PAIR, up)]
    assert [len(found) for found in cables] == [1, 1]
    assert ["dasharray" in found[0] for found in cables] == [True, False]


def test_a_bridge_has_its_ports_below_it():
    lines = network_picture(BRIDGED).text.split("\n")
    assert lines[1:5] == [
        "  ● up          br0       10.0.0.1/24                bridge with 2 ports",
        "                          fd00:1234:5678:9abc::1/64",
        "  ◐ no carrier  └ port2                              veth to eth0 in red",
        "  ● up          └ port10                             veth to eth0 in blue",
    ]


def test_a_picture_holds_no_number_that_the_kernel_hands_out():
    assert "4026" not in svg(network_picture(BRIDGED))
    assert "fe80" not in network_picture(PAIR).text


def test_the_other_end_outside_of_the_picture_is_named():
    assert "veth2 in" in svg(network_picture(PAIR[1:2]))


def test_a_veth_whose_other_end_is_not_known_says_so():
    view = network_picture([NetworkState("a", 1, (LinkState("v", 1, "veth", up=True, operstate="UP"),))])
    assert "its other end is not in sight" in view.text


def test_fifty_network_namespaces_are_counted():
    lo = LinkState("lo", 1, "loopback")
    many = [NetworkState(f"ns{number}", number, (lo,)) for number in range(50)]
    lines = network_picture([*PAIR, *many]).text.split("\n")
    assert lines[-1] == "… 50 more network namespaces: ns0, ns1, ns2, ns3, ns4, ns5, ns6, ns7, …"
    assert len(lines) < 25


def test_each_name_is_shown_in_the_layer_it_lies_in():
    assert union_stack(UNION).text.split("\n") == [
        "overlay on /var/lib/labkit/labs/2.3/merged (mounted)",
        "  upperdir    /var/lib/labkit/labs/2.3/upper",
        "  lowerdir 1  /var/lib/labkit/labs/2.3/lower2",
        "  lowerdir 2  /var/lib/labkit/labs/2.3/lower1",
        "  workdir     /var/lib/labkit/labs/2.3/work",
        "",
        "name     merged       upperdir     lowerdir 1  lowerdir 2",
        "───────  ───────────  ───────────  ──────────  ──────────",
        "dir      ● directory  ◎ opaque                 ○ hidden",
        "dir/old  -                                     ○ hidden",
        "f1       ● file                                ● file",
        "f2       ● file       ▲ copied up  ○ hidden",
        "f3       -            ✕ whiteout               ○ hidden",
        "f4       ● file                    ● file      ○ hidden",
        "new      ● file       ● file",
        "○ hidden: a layer above it has the name",
        "✕ whiteout: deleted in the union, the file below is untouched",
        "◎ opaque: hides all that the directory has in the layers below",
        "▲ copied up: written through the union, so the upper layer got a copy",
    ]
    for word in ("whiteout", "opaque", "copied up", "hidden", "upperdir", "lowerdir 2"):
        assert word in svg(union_stack(UNION))


def test_a_high_stack_tells_the_layers_by_their_roles():
    branches = tuple(("lowerdir", f"/l{number}") for number in range(12))
    text = union_stack(UnionState("overlay", "/m", branches, files=(FileState("f", (3, 7)),))).text
    assert "lowerdir 4 (● file)  lowerdir 8" in text


def test_a_union_that_is_not_mounted_says_so():
    view = union_stack(replace(UNION, mounted=False, files=()))
    assert view.text.split("\n")[0].endswith("(not mounted)")
    assert view.text.endswith("nothing in any layer yet")


def test_many_names_are_counted_in_text_and_picture():
    view = union_stack(replace(UNION, files=tuple(FileState(f"f{number:03}", (0,)) for number in range(300))))
    assert "… 260 more names" in view.text
    assert "… 293 more" in svg(view)


def test_a_picture_without_room_for_every_name_keeps_those_that_tell_most():
    files = (*(FileState(f"file{number}", (1,)) for number in range(40)), FileState("motd", (0, 1), "whiteout", visible=False))
    drawn = svg(union_stack(UnionState("overlay", "/m", (("upperdir", "/u"), ("lowerdir", "/l")), files=files)))
    assert "motd" in drawn
    assert "✕ whiteout" in drawn
