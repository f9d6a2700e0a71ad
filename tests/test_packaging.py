"""The ranges that users may install and the versions that development runs on agree."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DEPENDENCIES = PROJECT["dependencies"]
OWN_EXTRA = f"{PROJECT['name']}["
EXTRAS = [
    text
    for name in ("dev", "release", "serve", "s3", "ray", "heif", "jxl", "tiff")
    for text in PROJECT["optional-dependencies"][name]
    if not text.startswith(OWN_EXTRA)
]
LINES = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if line and not line.startswith("#")]
VERSIONS = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in PINS}


def test_constraints_are_exact_and_named_once():
    assert all(str(pin.specifier).startswith("==") for pin in PINS)
    assert len(VERSIONS) == len(PINS)


@pytest.mark.parametrize("text", [*DEPENDENCIES, *EXTRAS])
def test_what_development_runs_on_is_within_the_range(text):
    requirement = Requirement(text)
    assert requirement.specifier.contains(VERSIONS[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("text", [*DEPENDENCIES, *PROJECT["optional-dependencies"]["serve"]])
def test_a_range_has_one_lower_end(text):
    """.ci/ranges installs it by writing == for >=."""
    (bound,) = Requirement(text).specifier
    assert bound.operator == ">="
