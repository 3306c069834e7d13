"""Say whether the active conda environment holds what pyproject.toml asks for, and how to get it there if not."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version

from make_venv import declared


def main() -> None:
    missing = []
    for requirement in declared():
        name = re.match(r"[A-Za-z0-9._-]+", requirement)[0]
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        sys.exit(
            f"The active conda environment lacks {', '.join(missing)}. Add them with\n"
            "    conda env update -f environment.yml\n"
            "(or mamba), or deactivate it, and a virtual environment is made for you."
        )
    print(f"using the active conda environment {sys.prefix}")


if __name__ == "__main__":
    main()
