"""What stands under a cell: what changed in the kernel, and how it would be typed."""

import subprocess

import pytest
from show_states import CHANGE, FREEZER, TRACE

from labkit.kernel.state import Change, Difference
from labkit.show import cell_report, difference, operations
from labkit.show.changes import shell_lines
from labkit.trace import Operation, Trace


def test_a_small_cell_takes_three_lines():
    change = Difference(appeared=(Change("cgroup", "freezer:/lab-2.1/mycgroup", "", None, ""),))
    trace = Trace([Operation("mkdir -p /cg/mycgroup", calls=('mkdir("/cg/mycgroup", 0755)',))])
    assert cell_report(change, trace).text == (
        "kernel  + cgroup     freezer:/lab-2.1/mycgroup\n"
        "typed   mkdir -p /cg/mycgroup\n"
        '            call   mkdir("/cg/mycgroup", 0755)'
    )


def test_the_report_names_each_change_and_each_line():
    assert cell_report(CHANGE, TRACE).text.split("\n") == [
        "kernel  + cgroup     freezer:/lab-2.1/mycgroup",
        "        + process    clock  pid 4711, cgroup freezer:/lab-2.1/mycgroup",
        "        ~ cgroup     freezer:/lab-2.1/mycgroup  freezer.state: THAWED -> FROZEN",
        "        - link       veth1 in namespace1  veth",
        "typed   mkdir -p /sys/fs/cgroup/freezer/lab-2.1/mycgroup",
        '            call   mkdir("/sys/fs/cgroup/freezer/lab-2.1/mycgroup", 0755)',
        "        echo $clock > /sys/fs/cgroup/freezer/lab-2.1/mycgroup/cgroup.procs",
        "        echo FROZEN > /sys/fs/cgroup/freezer/lab-2.1/mycgroup/freezer.state",
        "        unshare --uts --pid --fork --mount-proc bash -c \\",
        "            'while :; do date; sleep 1; done' > \\",
        "            /var/lib/labkit/labs/2.1/clock.log 2>&1 & clock=$!",
        "            call   clone3(CLONE_NEWUTS|CLONE_NEWPID|CLONE_NEWNS)",
        '            call   mount("proc", "/proc", "proc", MS_NOSUID|MS_NODEV|MS_NOEXEC,',
        "              NULL)",
    ]


def test_html_folds_files_and_calls_and_says_how_many():
    html = operations(TRACE).html
    assert html.count("<details") == 1
    assert "2 files written, 3 calls" in html
    assert f"{FREEZER}/lab-2.1/mycgroup/freezer.state = FROZEN" in html


def test_a_pid_that_was_typed_by_its_name_is_shown_by_its_name():
    view = operations(TRACE)
    assert "4711" not in view.text + view.html
    assert "cgroup.procs = $clock" in view.html


def test_a_file_that_the_line_does_not_name_is_told_in_the_text_too():
    text = operations(Trace([Operation("cgclassify -g freezer:a $clock", writes=((f"{FREEZER}/a/tasks", "$clock"),))])).text
    assert text == f"cgclassify -g freezer:a $clock\n    write  {FREEZER}/a/tasks = $clock"


def test_a_cell_that_did_nothing_gets_nothing():
    assert not cell_report(Difference(), Trace())
    assert cell_report(Difference(), Trace()).text == cell_report(Difference(), Trace()).html == ""
    assert difference(Difference()).text == "nothing changed in the kernel"
    assert operations(Trace()).text == "nothing to type: no operation on the kernel"


def test_lines_without_a_change_say_so():
    assert cell_report(Difference(), TRACE).text.startswith("kernel  nothing changed in the kernel\ntyped   mkdir")


def test_many_alike_are_counted():
    change = Difference(went=tuple(Change("cgroup", f"freezer:/lab/{number}", "", "", None) for number in range(1000)))
    lines = difference(change).text.split("\n")
    assert lines[:2] == ["- cgroup     freezer:/lab/0", "- cgroup     freezer:/lab/1"]
    assert lines[6:] == ["- … 994 more cgroups"]


def test_kinds_that_end_in_s_are_counted_in_english():
    change = Difference(went=tuple(Change("process", f"sleep ({number})", "", "pid", None) for number in range(9)))
    assert difference(change).text.split("\n")[6:] == ["- … 3 more processes"]


def test_links_with_names_of_chance_are_sorted_by_what_they_lead_to():
    names = {"veth0a6c588": "veth, peer eth0 in net of web (2)", "veth80c3267": "veth, peer eth0 in net of web", "lab62": "bridge"}
    change = Difference(appeared=tuple(Change("link", name, "", None, what) for name, what in names.items()))
    assert [line.split()[2] for line in difference(change).text.split("\n")] == ["lab62", "veth80c3267", "veth0a6c588"]


def test_values_that_were_not_there_are_named():
    change = Difference(changed=(Change("link", "veth1", "master", None, "br0"), Change("link", "veth1", "alias", "a", "")))
    assert difference(change).text == '~ link       veth1  alias: a -> ""\n~ link       veth1  master: (none) -> br0'


def test_a_long_value_goes_on_its_own_lines():
    change = Difference(changed=(Change("mount", "/m", "super_options", "a" * 60, "b" * 60),))
    assert difference(change).text.split("\n")[0] == "~ mount      /m"
    assert "".join(difference(change).text.split()).endswith("a" * 60 + "->" + "b" * 60)


@pytest.mark.parametrize(
    "shell",
    [
        "printf '%s|' one two three four five six seven eight nine ten eleven twelve",
        "printf '%s|' 'a  quoted   string with spaces' \"another one $HOME here\" and\\ an escaped\\ space more words",
        "for i in 1 2; do\n  printf '%s|' $i\ndone",
        "printf '%s|' 'several\nlines in quotes'",
    ],
)
def test_broken_lines_mean_the_same_to_a_shell(shell):
    broken = "\n".join(shell_lines(shell, 40))
    run = [subprocess.run(["bash", "-c", one], capture_output=True, text=True, check=True).stdout for one in (shell, broken)]
    assert run[0] == run[1]
    assert all(len(line) <= 40 for line in broken.split("\n"))


def test_what_cannot_be_broken_is_marked():
    lines = shell_lines("bash -c '" + "x" * 60 + "\n" + "y" * 60 + "'", 40)
    assert all(len(line) <= 40 for line in lines)
    assert sum(line.startswith("↪") for line in lines) == 3


def test_html_names_a_group_once():
    change = Difference(appeared=tuple(Change("link", f"veth{number}", "", None, "") for number in range(4)))
    html = difference(change).html
    assert html.count("+ new") == html.count(">link<") == 1
    assert html.count("veth") == 4
