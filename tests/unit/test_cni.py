"""Networks by CNI: configurations are read and refused, plugins called in order, what was done is kept, in every version."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit.cni import Attachment, Caller, CniError, ConfigurationError, Network, Result, chains, configuration, plugin
from labkit.cni.holding import held
from labkit.errors import LabError, UnsupportedError

CHAIN = {
    "cniVersion": "1.0.0",
    "name": "web",
    "plugins": [
        {"type": "one", "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}},
        {"type": "two", "capabilities": {"portMappings": True, "bandwidth": False}},
    ],
}
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
LINK = Attachment("c1", "/proc/self/ns/net", "eth0", (("IP", "10.1.0.9"),), {"portMappings": PORTS, "bandwidth": {}})
ANSWER = {"cniVersion": "1.0.0", "interfaces": [], "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]}


class Plugins:
    """Programs that note how they are called, and answer what they are told to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"

    def write(self, kind: str, answer: object = ANSWER, status: int = 0, only: str = "ADD", first: str = "") -> None:
        """Make a plugin that answers so to the operation `only`, and {} with status 0 to others."""
        program = self.directory / kind
        note = f"{{ printf '%s' '{kind} '; env | grep CNI_ | sort | tr '\\n' ' '; cat; echo; }} >> {self.log}"
        said = answer if isinstance(answer, str) else json.dumps(answer)
        lines = ["#!/bin/sh", first, note, f"[ $CNI_COMMAND = {only} ] || exit 0", "cat << 'END'", said, "END", f"exit {status}", ""]
        program.write_text("\n".join(lines))
        program.chmod(0o755)

    def calls(self) -> list[tuple[str, dict[str, str], dict]]:
        """Return kind, environment and standard input of each call."""
        found = []
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            words, brace, told = line.partition("{")
            kind, *pairs = words.split()
            found.append((kind, dict(pair.split("=", 1) for pair in pairs), json.loads(brace + told)))
        return found


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    (tmp_path / "bin").mkdir()
    found = Plugins(tmp_path / "bin")
    found.write("one")
    found.write("two", {**ANSWER, "dns": {"nameservers": ["10.1.0.1"]}})
    return found


@pytest.fixture
def caller(tmp_path: Path, plugins: Plugins) -> Caller:
    return Caller(tmp_path / "state", [plugins.directory], seconds=10)


def chain(**more: object) -> Network:
    return Network.parse(json.dumps(CHAIN | more))


def test_a_configuration_of_one_plugin_is_a_chain_of_one() -> None:
    network = Network.parse('{"name": "containers", "type": "bridge", "bridge": "rktbr1"}')
    assert (network.name, network.cni_version, [each["type"] for each in network.plugins]) == ("containers", "0.1.0", ["bridge"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "is no JSON object"),
        ("[" * 100_000, "is no JSON"),
        ('{"type": "a"}', "name: '' is no name"),
        ('{"name": "../a", "type": "a"}', "name: '../a' is no name"),
        ('{"name": 1, "type": "a"}', "name: 1 is no name"),
        ('{"name": "a", "cniVersion": "9.0.0", "type": "a"}', "cniVersion: '9.0.0'"),
        ('{"name": "a", "cniVersion": ["1.0.0"], "type": "a"}', "cniVersion: ['1.0.0']"),
        ('{"name": "a"}', "type: '' is no name of a plugin"),
        ('{"name": "a", "type": "../sh"}', "type: '../sh'"),
        ('{"name": "a", "type": ["b"]}', "type: ['b']"),
        ('{"name": "a", "type": "b", "ipam": {"type": "x/y"}}', "ipam.type: 'x/y'"),
        ('{"name": "a", "type": "b", "ipam": 3}', "ipam: is no JSON object"),
        ('{"name": "a", "plugins": []}', "plugins: must be a list"),
        ('{"name": "a", "plugins": [{"type": "b"}, {"type": ""}]}', "plugins[1].type: ''"),
        ('{"name": "a", "plugins": [3]}', "plugins[0]: is no JSON object"),
        ('{"name": "a", "type": "b", "capabilities": []}', "capabilities: is no JSON object"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_with_its_field(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Network.parse(text, Path("/etc/cni/net.d/10-a.conf"))
    assert said in str(refused.value)
    assert str(refused.value).startswith("/etc/cni/net.d/10-a.conf: ")


JUNK = [None, 0, -1, 1e308, True, "", "x", "../x", "\0", "a" * 5000, [], [[]], {}, {"type": "x"}, [{"ip": 1}], {"a": {"b": {}}}]


def mutated(value: object, chance: random.Random) -> object:
    """Return a document with something else in one place of it."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.2:
        return chance.choice(JUNK)
    copy = value.copy()
    key = chance.choice(list(copy)) if isinstance(copy, dict) else chance.randrange(len(copy))
    if chance.random() < 0.1:
        del copy[key]
    else:
        copy[key] = mutated(copy[key], chance)
    return copy


def test_configurations_and_answers_of_strangers_are_taken_or_refused_in_one_line() -> None:
    chance = random.Random(1)
    answer = {**ANSWER, "interfaces": [{"name": "eth0"}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["1.1.1.1"]}}
    old = {"ip4": {"ip": "10.1.0.2/24", "routes": [{"dst": "0.0.0.0/0"}]}}
    taken, refused = 0, []
    for _ in range(4000):
        try:
            network = Network.parse(json.dumps(mutated(CHAIN, chance)))
            [network.execution(place, {"portMappings": PORTS}, ANSWER, Path("/x")) for place in range(len(network.plugins))]
            for one in (answer, old):
                changed = mutated(one, chance)
                if isinstance(changed, dict):
                    Result.parse(changed).address("/n")
            taken += 1
        except LabError as error:
            refused.append(str(error))
    assert [text for text in refused if "\n" in text] == []
    assert len(refused) > 200
    assert taken > 200


def test_the_networks_of_a_directory_come_by_file_name_and_the_first_of_a_name_counts(tmp_path: Path) -> None:
    for file, name, kind in (("20-b.conf", "b", "x"), ("10-a.conflist", "a", "x"), ("30-b.conf", "b", "y"), ("note.txt", "c", "x")):
        (tmp_path / file).write_text(json.dumps({"name": name, "type": kind}))
    assert [(each.name, each.plugins[0]["type"]) for each in configuration.networks(tmp_path)] == [("a", "x"), ("b", "x")]
    assert configuration.networks(tmp_path / "nowhere") == ()


@pytest.mark.parametrize("bad", [{"container_id": "../x"}, {"container_id": ""}, {"ifname": "a/b"}, {"ifname": "a" * 16}, {"ifname": ".."}])
def test_a_link_whose_name_would_lead_astray_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(LabError):
        Attachment(**({"container_id": "c1", "netns": "/n"} | bad))
    with pytest.raises(LabError):
        Attachment("c1", "/n", args=(("A", "1;B=2"),))


@pytest.mark.parametrize(
    "answer",
    [
        {"ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]}, "dns": {}},
        {"ips": [{"version": "4", "address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}]}
        | {"interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": "/n"}], "routes": [{"dst": "0.0.0.0/0"}]},
        {"ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}], "routes": [{"dst": "0.0.0.0/0"}], "interfaces": None},
    ],
    ids=["0.2.0", "0.3.1", "1.0.0"],
)
def test_a_result_of_any_version_is_read_alike(answer: dict) -> None:
    result = Result.parse(answer)
    found = result.address("/n")
    assert found is not None
    assert (found.address, found.gateway, result.routes[0].destination) == ("10.1.0.2/24", "10.1.0.1", "0.0.0.0/0")


@pytest.mark.parametrize(
    "answer",
    [
        {"ips": [{}]},
        {"ips": [{"address": "10.0.0.1/8", "interface": 1}]},
        {"ips": 3},
        {"interfaces": [{"mac": "x"}]},
        {"routes": [{}]},
        {"ips": ["x"]},
        {"dns": [1]},
    ],
)
def test_an_answer_that_is_no_result_is_refused(answer: dict) -> None:
    with pytest.raises(LabError, match="no result"):
        Result.parse(answer)


def test_add_calls_the_chain_in_order_and_hands_each_the_result_of_the_one_before(caller: Caller, plugins: Plugins) -> None:
    assert caller.add(chain(), LINK).nameservers == ("10.1.0.1",)
    (one, environment, first), (two, _, second) = plugins.calls()
    assert (one, two) == ("one", "two")
    assert environment == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/proc/self/ns/net",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(plugins.directory),
        "CNI_ARGS": "IgnoreUnknown=1;IP=10.1.0.9",
    }
    assert first == {
        "cniVersion": "1.0.0",
        "name": "web",
        "type": "one",
        "ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "dataDir": str(caller.leases)},
    }
    assert second == {"cniVersion": "1.0.0", "name": "web", "type": "two", "runtimeConfig": {"portMappings": PORTS}, "prevResult": ANSWER}


def test_del_goes_backwards_with_the_kept_result_and_forgets_it(caller: Caller, plugins: Plugins) -> None:
    caller.add(chain(), LINK)
    plugins.log.unlink()
    assert [(network.name, link.ifname) for network, link, _ in caller.attached("c1")] == [("web", "eth0")]
    caller.delete(chain(plugins=[{"type": "of another day"}]), Attachment("c1", ""))
    assert [(kind, environment["CNI_COMMAND"]) for kind, environment, _ in plugins.calls()] == [("two", "DEL"), ("one", "DEL")]
    assert all(told["prevResult"]["dns"] == {"nameservers": ["10.1.0.1"]} for *_, told in plugins.calls())
    assert plugins.calls()[0][2]["runtimeConfig"] == {"portMappings": PORTS}
    assert caller.attached() == ()
    assert not [file for file in caller.state.rglob("*") if file.is_file()]


@pytest.mark.parametrize(("version", "told"), [("0.3.1", False), ("0.4.0", True)])
def test_del_and_check_of_old_versions_are_as_old(caller: Caller, plugins: Plugins, version: str, told: bool) -> None:
    network = chain(cniVersion=version)
    caller.add(network, LINK)
    assert "prevResult" in plugins.calls()[1][2]
    plugins.log.unlink()
    caller.check(network, LINK)
    assert [environment["CNI_COMMAND"] for _, environment, _ in plugins.calls()] == (["CHECK"] * 2 if told else [])
    caller.delete(network, LINK)
    assert ("prevResult" in plugins.calls()[-1][2]) is told


def test_what_is_done_is_known_before_it_is_done(caller: Caller, plugins: Plugins) -> None:
    """The plugin looks: the record of its container is there already."""
    plugins.write("one", first=f"[ $CNI_COMMAND != ADD ] || ls {caller.state}/results > {plugins.directory}/seen")
    caller.add(chain(), LINK)
    assert (plugins.directory / "seen").read_text() == "web-c1-eth0.json\n"


def test_a_plugin_that_fails_is_quoted_and_what_was_done_is_undone(caller: Caller, plugins: Plugins) -> None:
    plugins.write("two", {"cniVersion": "1.0.0", "code": 7, "msg": "no such mode", "details": "mode: x"}, status=1)
    with pytest.raises(CniError) as refused:
        caller.add(chain(), LINK)
    assert str(refused.value) == "plugin two: ADD: no such mode: mode: x; cause: the configuration is not valid"
    assert [(kind, environment["CNI_COMMAND"]) for kind, environment, _ in plugins.calls()] == [
        ("one", "ADD"),
        ("two", "ADD"),
        ("two", "DEL"),
        ("one", "DEL"),
    ]
    assert caller.attached() == ()


def test_a_plugin_that_refused_add_may_refuse_del_for_ever(caller: Caller, plugins: Plugins) -> None:
    """Nothing of it is left behind: the address that it had taken before is given back without it."""
    taken = caller.leases / "web"
    refusal = 'echo \'{"msg": "no"}\'; exit 1'
    plugins.write("one", first=f"mkdir -p {taken}; printf 'c1\\r\\neth0' > {taken}/10.1.0.2; echo c2 > {taken}/10.1.0.3; {refusal}")
    with pytest.raises(CniError, match="plugin one: ADD: no"):
        caller.add(chain(), LINK)
    assert caller.attached() == ()
    assert sorted(os.listdir(taken)) == ["10.1.0.3", "lock"]


def test_where_del_fails_the_others_are_called_and_the_record_stays_for_the_next_time(caller: Caller, plugins: Plugins) -> None:
    caller.add(chain(), LINK)
    plugins.write("two", {"code": 11, "msg": "busy"}, status=1, only="DEL")
    with pytest.raises(ExceptionGroup) as refused:
        caller.delete(chain(), LINK)
    assert "busy" in str(refused.value.exceptions[0])
    assert plugins.calls()[-1][0] == "one"
    assert len(caller.attached("c1")) == 1
    plugins.write("two")
    caller.delete(chain(), LINK)
    assert caller.attached("c1") == ()


@pytest.mark.parametrize(("answer", "said"), [("oops", "no JSON object"), ("[1]", "no JSON object"), ('{"ips": 3}', "no result")])
def test_an_answer_that_cannot_be_read_is_an_error_and_undone(caller: Caller, plugins: Plugins, answer: str, said: str) -> None:
    plugins.write("two", answer)
    with pytest.raises(LabError, match=said):
        caller.add(chain(), LINK)
    assert caller.attached() == ()


def test_a_plugin_that_dies_without_a_word_is_told_with_its_status(caller: Caller, plugins: Plugins) -> None:
    plugins.write("one", "", status=3)
    with pytest.raises(CniError, match="plugin one: ADD: ended with status 3: it said nothing"):
        caller.add(chain(), LINK)


def test_a_plugin_that_is_not_there_is_named_with_its_package(caller: Caller) -> None:
    with pytest.raises(UnsupportedError, match=r"CNI plugin nosuch.*containernetworking-plugins"):
        caller.add(Network.parse('{"name": "a", "type": "nosuch"}'), LINK)


def test_a_second_link_of_the_same_name_is_refused(caller: Caller) -> None:
    caller.add(chain(), LINK)
    with pytest.raises(LabError, match="already"):
        caller.add(chain(), LINK)
    assert len(caller.attached()) == 1


def test_del_without_add_is_no_error_and_a_namespace_that_is_gone_is_not_told(caller: Caller, plugins: Plugins) -> None:
    caller.delete(chain(), Attachment("c2", "/run/netns/gone"))
    assert all("CNI_NETNS" not in environment for _, environment, _ in plugins.calls())


def test_del_waits_for_a_plugin_whose_caller_was_killed(caller: Caller, plugins: Plugins, tmp_path: Path) -> None:
    """The plugin of a caller that was killed goes on; what it makes must not come after what takes it away."""
    plugins.write("one", first="[ $CNI_COMMAND != ADD ] || sleep 1")
    code = (
        "import json, sys; from pathlib import Path; from labkit.cni import *;"
        "Caller(Path(sys.argv[1]), [Path(sys.argv[2])]).add(Network.parse(sys.argv[3]), Attachment('c1', '/proc/self/ns/net'))"
    )
    argv = [sys.executable, "-c", code, str(caller.state), str(plugins.directory), json.dumps(CHAIN)]
    victim = subprocess.Popen(argv, env=os.environ | {"PYTHONPATH": str(Path(plugin.__file__).parents[2])})
    deadline = time.monotonic() + 20
    while not caller.attached() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    victim.kill()
    victim.wait()
    ((network, link, result),) = caller.attached("c1")
    assert result is None
    caller.delete(network, link)
    assert [environment["CNI_COMMAND"] for _, environment, _ in plugins.calls()] == ["ADD", "DEL"]


def test_a_lock_that_is_held_too_long_is_named(tmp_path: Path) -> None:
    with held(tmp_path / "lock"), pytest.raises(LabError, match="lock is locked"), held(tmp_path / "lock", seconds=0.05):
        pass


SAVED = """*nat
:PREROUTING ACCEPT [0:0]
:CNI-aaa - [0:0]
:CNI-aaab - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-aaa
-A POSTROUTING -s 10.0.0.2/32 -m comment --comment "name: \\"-j CNI-aaa\\"" -j CNI-aaab
-A CNI-aaa -d 10.0.0.0/24 -j ACCEPT
COMMIT
"""


def test_a_chain_goes_with_the_rules_that_jump_to_it_and_with_no_other() -> None:
    assert chains.removal(SAVED, ["CNI-aaa", "CNI-none"]) == [
        "-D PREROUTING -m addrtype --dst-type LOCAL -j CNI-aaa",
        "-F CNI-aaa",
        "-X CNI-aaa",
    ]
    assert chains.removal(SAVED, ["CNI-aa"]) == []
    assert chains.removal("", ["CNI-aaa"]) == []
