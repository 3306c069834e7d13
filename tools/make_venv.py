"""Build a virtual environment for this checkout: from the lock, or at one end of the versions that we claim.

    python3 tools/make_venv.py --lock requirements.lock .venv
    python3 tools/make_venv.py --bounds lowest .venv-lowest

Uses the standard library only, since it runs before anything is installed. Running it again brings an existing
environment up to date; an interrupted run is finished by the next one.
"""

import argparse
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def declared() -> list[str]:
    """Return every requirement that pyproject.toml declares, extras included, such as "numpy>=2.1.3"."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return sum(project["optional-dependencies"].values(), list(project["dependencies"]))


def pip(python: Path, *arguments: str) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if subprocess.run([*map(str, command), *arguments], check=False).returncode:
        sys.exit(
            "pip could not install the environment: the message is above. Without a network this needs the wheels in "
            "pip's cache or in a folder named by PIP_FIND_LINKS. Run the same command again to go on."
        )


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - this is the file that finds it out
        version = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            f"bigmodel-lab needs Python >= 3.11, and {sys.executable} is {version}. "
            "Install a newer one and name it: make PYTHON=python3.12 ..."
        )
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the environment goes")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--lock", type=Path, help="install exactly these versions")
    which.add_argument(
        "--bounds", choices=["lowest", "newest"], help="install the ends of pyproject.toml's ranges"
    )
    options = parser.parse_args()

    python = options.folder / "bin" / "python"
    if not python.exists():
        print(
            f"making a virtual environment in {options.folder} (Python {sys.version.split()[0]})",
            flush=True,
        )
        try:
            venv.create(options.folder, with_pip=True)
        except (subprocess.CalledProcessError, OSError) as error:
            sys.exit(
                f"{options.folder} could not be made: {error}. On Debian and Ubuntu: apt install python3-venv. "
                f"Then remove {options.folder} and run again."
            )
    print("installing packages: one to five minutes the first time", flush=True)
    if options.lock:
        pip(python, "-r", str(options.lock))
    elif options.bounds == "newest":
        pip(python, "--upgrade", *declared())
    else:
        pip(python, *(re.sub(r">=([^,]+).*", r"==\1", requirement) for requirement in declared()))


if __name__ == "__main__":
    main()
