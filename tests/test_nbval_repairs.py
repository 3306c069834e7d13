"""conftest.py at the top: what `pytest --nbval` must pass, what it must fail, and in which words."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
SVG = {"image/svg+xml": "<svg>stored</svg>", "text/plain": "<Figure>"}
SHOW_SVG = textwrap.dedent("""\
    from IPython.display import display
    display({"image/svg+xml": "<svg>new</svg>", "text/plain": "<Figure>"}, raw=True)""")
ENVIRONMENT = textwrap.dedent("""\
    import os, torch, numba
    print(torch.get_num_threads(), numba.get_num_threads(), hash("a"), os.environ["TQDM_DISABLE"])
    print("bigmodel-lab-tests-" in os.environ["BIGMODEL_LAB_HOME"], os.path.exists(os.environ["BIGMODEL_LAB_HOME"]))""")


def stream(text):
    return [new_output("stream", name="stdout", text=text)]


def error(name, value):
    return [new_output("error", ename=name, evalue=value, traceback=["stored"])]


CELLS = {  # notebook -> (id, source, stored outputs, tags)
    "passes": [
        ("p-semicolon", "1 + 1;", [], []),
        ("p-svg", SHOW_SVG, [new_output("display_data", data=SVG)], []),
        ("p-raises", "1 / 0", error("ZeroDivisionError", "division by zero"), ["raises-exception"]),
        ("p-ignored", "print(2)", stream("1\n"), ["nbval-ignore-output"]),
    ],
    "environment": [("e-print", ENVIRONMENT, stream("1 1 HASH 1\nTrue False\n"), [])],
    "changed": [("c-print", "print('a\\nb\\nc')", stream("a\nB\nc\n"), [])],
    "raises_no_more": [("r-cell", "1", error("ZeroDivisionError", "gone"), ["raises-exception"])],
    "raises_otherwise": [
        ("o-cell", "int('x')", error("ValueError", "stored"), ["raises-exception"])
    ],
    "raises": [("s-cell", "undefined_name", [], [])],
    "warns": [("w-cell", "import warnings; warnings.warn('look', stacklevel=1)", [], [])],
    "dies": [("d-cell", "import os; os._exit(1)", [], [])],
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What pytest prints about the notebooks above, stored in a project that has our conftest.py."""
    top = tmp_path_factory.mktemp("project")
    (top / "conftest.py").write_text((ROOT / "conftest.py").read_text("utf-8"), "utf-8")
    (top / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8"), "utf-8")
    seed_zero = "import sys; sys.stdout.write(str(hash('a')))"
    fixed_hash = subprocess.run(
        [sys.executable, "-c", seed_zero],
        env={"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for folder in ("chapters", "labs", "tests", "book", "chapters/.ipynb_checkpoints"):
        (top / folder).mkdir()
    for name, cells in CELLS.items():
        nb = new_notebook()
        for cell_id, source, outputs, tags in cells:
            for output in outputs:
                if output.output_type == "stream":
                    output.text = output.text.replace("HASH", fixed_hash)
            nb.cells.append(
                new_code_cell(
                    source, id=cell_id, outputs=outputs, execution_count=1, metadata={"tags": tags}
                )
            )
        nbformat.write(nb, top / "chapters" / f"{name}.ipynb")
    for stray in ("book/changed.ipynb", "chapters/.ipynb_checkpoints/changed-checkpoint.ipynb"):
        (top / stray).write_text((top / "chapters/changed.ipynb").read_text("utf-8"), "utf-8")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--nbval",
            "-rA",
            "-p",
            "no:cacheprovider",
            "--color=no",
            ".",
        ],
        cwd=top,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return run.stdout + run.stderr


def section(report: str, cell_id: str) -> str:
    """The part of the report between the line that names a failing cell and the next such line."""
    found = re.search(rf"^_+ \S*::{cell_id} _+$(.*?)^(_+ |=+ )", report, re.MULTILINE | re.DOTALL)
    assert found, f"no failure of {cell_id} in:\n{report}"
    return found[1]


@pytest.mark.parametrize("cell_id", ["p-semicolon", "p-svg", "p-raises", "p-ignored", "e-print"])
def test_passes(report, cell_id):
    assert re.search(rf"^PASSED chapters/\w+\.ipynb::{cell_id}$", report, re.MULTILINE), report


def test_a_changed_output_fails_with_a_diff(report):
    lines = section(report, "c-print").splitlines()
    assert {"-B", "+b", " a", " c"} <= set(lines)


@pytest.mark.parametrize("cell_id", ["r-cell", "o-cell"])
def test_another_exception_than_the_stored_one_fails(report, cell_id):
    assert re.search(
        "^-(ZeroDivisionError: gone|ValueError: stored)$", section(report, cell_id), re.MULTILINE
    )


def test_an_exception_fails_and_shows_its_traceback(report):
    assert "NameError: name 'undefined_name' is not defined" in re.sub(
        r"\x1b\[[\d;]*m", "", section(report, "s-cell")
    )


def test_a_warning_fails(report):
    assert "+[stderr]" in section(report, "w-cell")
    assert "UserWarning: look" in section(report, "w-cell")


def test_a_dead_kernel_is_named_at_once(report):
    assert "the kernel died" in section(report, "d-cell")
    seconds = float(re.search(r"in ([\d.]+)s", report)[1])
    assert seconds < 100  # nbval alone waits for the cell's timeout, 180 s


def test_only_chapters_and_labs_are_collected(report):
    assert re.search(r"^collected 11 items", report, re.MULTILINE), report[:500]
