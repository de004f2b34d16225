"""One set of dependencies, said in four files: they agree."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {"playwright": "playwright-python"}
"""Where conda-forge uses another name than PyPI: its `playwright` is the one for Node."""


def declared() -> dict[str, set[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = [line for lines in project["project"]["optional-dependencies"].values() for line in lines]
    return dict(map(parsed, [*project["project"]["dependencies"], *extras]))


def runtime() -> set[str]:
    return {parsed(line)[0] for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]}


def parsed(requirement: str) -> tuple[str, set[str]]:
    name, bounds = re.fullmatch(r"([A-Za-z0-9_.-]+)\s*(.*)", requirement).groups()
    return name.lower(), set(filter(None, bounds.replace(" ", "").split(",")))


def pins(lock: str) -> dict[str, set[str]]:
    """Return name -> versions of a lock; two where they differ by Python version."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ ;\\]+)", (ROOT / lock).read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def inside(version: str, bound: str) -> bool:
    operator, limit = re.fullmatch(r"(>=|<)(.*)", bound).groups()
    numbers = [tuple(int(part) for part in text.split(".")) for text in (version, limit)]
    width = max(map(len, numbers))
    left, right = (number + (0,) * (width - len(number)) for number in numbers)
    return left >= right if operator == ">=" else left < right


def test_environment_yml_names_the_same_packages_with_the_same_bounds() -> None:
    conda = dict(parsed(line) for line in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"])
    assert conda.pop("python") == {tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]}
    assert conda == {CONDA_NAMES.get(name, name): bounds for name, bounds in declared().items()}


def test_every_dependency_has_a_lower_and_an_upper_bound() -> None:
    loose = {name: bounds for name, bounds in declared().items() if {bound.strip("0123456789.") for bound in bounds} != {">=", "<"}}
    assert loose == {}


def test_the_locks_pin_every_declared_package_within_its_bounds() -> None:
    locked = pins("requirements-test.lock")
    wrong = [f"{name} {v}" for name, bounds in declared().items() for v in locked[name] for bound in bounds if not inside(v, bound)]
    assert wrong == []


def test_the_lock_of_the_lab_is_a_part_of_the_lock_of_the_tests() -> None:
    lab, tests = pins("requirements.lock"), pins("requirements-test.lock")
    assert runtime() <= set(lab)
    assert {name: tests.get(name) for name in lab} == lab


def test_every_pin_carries_hashes() -> None:
    for lock in ("requirements.lock", "requirements-test.lock"):
        entries = re.split(r"\n(?=[a-z0-9])", (ROOT / lock).read_text())
        assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
