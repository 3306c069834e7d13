"""pyproject.toml, requirements.lock and environment.yml say the same, and this environment is what they say."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from write_lock import CONDA_NAMES  # noqa: E402

BOUNDS = os.environ.get("BIGMODEL_LAB_BOUNDS")  # set by `make test-lowest` and `make test-newest`


def declared() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    texts = sum(project["optional-dependencies"].values(), list(project["dependencies"]))
    return {canonicalize_name(r.name): r for r in map(Requirement, texts)}


def locked() -> dict[str, str]:
    text = (ROOT / "requirements.lock").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(n): v for n, v in (line.split("==") for line in lines)}


def conda() -> dict[str, str]:
    to_pip = {c: p for p, c in CONDA_NAMES.items() if c}
    entries = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    pip = next(e["pip"] for e in entries if isinstance(e, dict))
    texts = [e for e in [*entries, *pip] if isinstance(e, str)]
    pins = [m.groups() for m in (re.fullmatch(r"([\w.-]+)={1,2}([\w.]+)", t) for t in texts) if m]
    return {canonicalize_name(to_pip.get(n, n)): v for n, v in pins}


def test_every_declared_package_is_locked_within_its_range():
    pins = locked()
    missing = sorted(declared().keys() - pins.keys())
    assert not missing, f"pyproject.toml declares {missing}, the lock has no pin: run `make lock`"
    for name, requirement in declared().items():
        assert pins[name] in requirement.specifier, (
            f"the lock has {name}=={pins[name]}, pyproject.toml wants {requirement}: run `make lock`"
        )


def test_conda_users_get_the_locked_versions():
    pins = locked()
    want = {name: pins[name] for name in declared()}
    assert conda() == want, "environment.yml and requirements.lock disagree: run `make lock`"


def test_every_declared_package_has_a_lower_bound():
    for name, requirement in declared().items():
        assert any(s.operator == ">=" for s in requirement.specifier), f"{name} has no lower bound"


@pytest.mark.skipif(
    BOUNDS is not None, reason="this run installs other versions than the lock on purpose"
)
def test_this_environment_is_the_locked_one():
    got = {name: version(name).split("+")[0] for name in declared()}
    assert got == {name: locked()[name] for name in declared()}, "run `make env`"


@pytest.mark.skipif(BOUNDS != "lowest", reason="only in `make test-lowest`")
def test_the_lowest_run_really_has_the_lowest_versions():
    for name, requirement in declared().items():
        low = next(s.version for s in requirement.specifier if s.operator == ">=")
        assert Requirement(f"x=={low}").specifier.contains(version(name)), (name, version(name))


def test_no_requirement_is_broken():
    result = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("target", ["lab", "test", "notebooks", "book", "bench", "lint", "doctor"])
def test_the_targets_that_the_readme_names_exist(target):
    assert f"make {target}" in (ROOT / "README.md").read_text("utf-8")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.M)
