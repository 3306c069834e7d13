"""How much of what the notebooks put out is compared, and that whatever is not has its reason in uncompared.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from bigmodel_lab.book.notebooks import FOLDERS, FRAMES, compared, parse

ROOT = Path(__file__).resolve().parent.parent
LEAST_SHARE = 0.90


def audit(notebooks, listed):
    """Count the cells that put something out, and hold the list against them.

    Parameters
    ----------
    notebooks : dict from path to notebook
    listed : dict from path to a dict from cell id to reason

    Returns
    -------
    summary : how many cells put something out, and how many of them are compared
    problems : list of sentences
    """
    verdicts = {
        (path, cell.id): compared(cell) for path, nb in notebooks.items() for cell in nb.cells
    }
    problems = [
        f"{path}: not executed, so that nothing is compared. Run make notebooks."
        for path, nb in notebooks.items()
        if any(
            c.cell_type == "code" and c.source.strip() and c.execution_count is None
            for c in nb.cells
        )
    ]
    for (path, cell_id), verdict in verdicts.items():
        if verdict is False and cell_id not in listed.get(path, {}):
            problems.append(
                f"{path}, cell {cell_id}: nothing that it puts out is compared. Print the numbers that its figure "
                "shows, or list the cell with its reason."
            )
    for path, cells in listed.items():
        for cell_id, reason in cells.items():
            if (path, cell_id) not in verdicts:
                problems.append(
                    f"{path}, cell {cell_id}: listed, and there is no such cell. Delete the entry."
                )
            elif verdicts[path, cell_id] is not False:
                problems.append(
                    f"{path}, cell {cell_id}: listed, and it is compared. Delete the entry."
                )
            if not isinstance(reason, str) or len(reason.split()) < 3:
                problems.append(
                    f"{path}, cell {cell_id}: {reason!r} is no reason. Write a sentence."
                )
    outputs = [verdict for verdict in verdicts.values() if verdict is not None]
    share = sum(outputs) / max(1, len(outputs))
    summary = f"{sum(outputs)} of {len(outputs)} output cells in {len(notebooks)} notebooks are compared: {share:.1%}"
    if share < LEAST_SHARE:
        problems.append(f"{summary}; at least {LEAST_SHARE:.0%} must be.")
    return summary, problems


def test_what_is_compared(record_property):
    notebooks = {
        path.relative_to(ROOT).as_posix(): parse(path.read_text("utf-8"))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).glob("*.ipynb"))
    }
    assert notebooks, f"no notebook in {' or '.join(FOLDERS)}"
    listed = tomllib.loads((ROOT / "tests/uncompared.toml").read_text("utf-8"))
    summary, problems = audit(notebooks, listed)
    record_property("compared cells", summary)  # conftest.py prints it
    assert not problems, "see tests/uncompared.toml:\n" + "\n".join(problems)


def printing(cell_id, *tags, count=1):
    return new_code_cell(
        "f()", id=cell_id, outputs=[PRINT], execution_count=count, metadata={"tags": list(tags)}
    )


PRINT = new_output("stream", name="stdout", text="1\n")
PICTURE = new_output("display_data", data={"image/png": "x", "text/plain": "<Figure size 700x360>"})
SLIDER = new_output(
    "display_data", data={FRAMES: {}, "image/png": "x", "text/plain": "Slider over lr"}
)
CAPTIONS = new_output(
    "display_data",
    data={FRAMES: {}, "image/png": "x", "text/plain": "Slider over lr\nlr = 1: diverges"},
)
VALUE = new_output("execute_result", data={"text/plain": "0.25"})


@pytest.mark.parametrize(
    ("outputs", "tags", "verdict"),
    [
        ([], [], None),
        ([PRINT], [], True),
        ([VALUE], [], True),
        ([PICTURE], [], False),
        ([PICTURE, PRINT], [], True),
        ([SLIDER], [], False),
        ([CAPTIONS], [], True),
        ([PRINT], ["nbval-ignore-output"], False),
        ([], ["nbval-ignore-output"], False),
        (
            [new_output("error", ename="ValueError", evalue="no", traceback=[])],
            ["raises-exception"],
            True,
        ),
    ],
)
def test_which_cells_count(outputs, tags, verdict):
    assert compared(new_code_cell("f()", outputs=outputs, metadata={"tags": tags})) is verdict


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"a.ipynb": {"a-time": "prints seconds of this run"}}, None),
        ({}, "a.ipynb, cell a-time: nothing that it puts out is compared"),
        ({"a.ipynb": {"a-time": "time"}}, "is no reason"),
        (
            {
                "a.ipynb": {
                    "a-time": "prints seconds of this run",
                    "a-print": "no longer needed here",
                }
            },
            "it is compared",
        ),
        (
            {"a.ipynb": {"a-time": "prints seconds of this run", "a-gone": "cell was deleted"}},
            "no such cell",
        ),
        (
            {
                "a.ipynb": {"a-time": "prints seconds of this run"},
                "b.ipynb": {"b-x": "was deleted too"},
            },
            "no such cell",
        ),
    ],
)
def test_the_list_is_held_to_the_notebooks(listed, message):
    cells = [printing(f"a-{word}") for word in ["print", *"bcdefghi"]]
    cells.append(printing("a-time", "nbval-ignore-output"))
    summary, problems = audit({"a.ipynb": new_notebook(cells=cells)}, listed)
    assert summary == "9 of 10 output cells in 1 notebooks are compared: 90.0%"
    assert len(problems) == (message is not None)
    assert message is None or re.search(message, problems[0])


def test_less_than_nine_in_ten_fails():
    cells = [printing(f"a-{word}") for word in "bcdefghi"]
    cells.append(printing("a-time", "nbval-ignore-output"))
    _, problems = audit(
        {"a.ipynb": new_notebook(cells=cells)},
        {"a.ipynb": {"a-time": "prints seconds of this run"}},
    )
    assert problems == [
        "8 of 9 output cells in 1 notebooks are compared: 88.9%; at least 90% must be."
    ]


def test_a_notebook_that_was_not_executed_fails():
    nb = new_notebook(cells=[printing("a-print"), printing("a-more", count=None)])
    assert audit({"a.ipynb": nb}, {})[1] == [
        "a.ipynb: not executed, so that nothing is compared. Run make notebooks."
    ]
