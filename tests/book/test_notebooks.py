"""bigmodel_lab/book/notebooks.py: the normal form, what `check` says, and real kernels for `run`."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bigmodel_lab.book import notebooks
from bigmodel_lab.book.notebooks import (
    FRAMES,
    WIDGET,
    NotebookError,
    check_text,
    keep_times,
    normalise,
    parse,
)

STEM = "c98_test"


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def code(source, *outputs, cell_id, count=1, **metadata):
    return new_code_cell(
        source, id=cell_id, outputs=list(outputs), execution_count=count, metadata=metadata
    )


def normal(*cells, **metadata):
    """The cells that a notebook has after normalising."""
    nb = new_notebook(metadata=metadata)
    nb.cells = list(
        cells
    )  # not through new_notebook, which gives one of two equal ids another name
    return parse(normalise(nb, STEM)).cells


def outputs_of(*outputs):
    return normal(code("f()", *outputs, cell_id="c98-f"))[0].outputs


# ---- normal form


def test_ids_that_somebody_chose_stay_and_the_others_are_counted_on():
    cells = [
        new_markdown_cell("a", id="c98-title"),
        new_markdown_cell("b", id="fd2b9c1a"),
        new_markdown_cell("c", id="c98-07"),
        new_markdown_cell("d", id="b3c9f3a0-5d52-4c0e-9a55-0f6f7a8e2d11"),
        new_markdown_cell("e", id="1234", metadata={"id": "c98-from-jupytext"}),
    ]
    ids = [cell.id for cell in normal(*cells)]
    assert ids == ["c98-title", "c98-08", "c98-07", "c98-09", "c98-from-jupytext"]
    assert all(not cell.metadata for cell in normal(*cells))


def test_the_notebooks_own_id_goes_before_the_files_name():
    assert normal(new_markdown_cell("a", id="1"), bigmodel_lab={"id": "L02"})[0].id == "L02-01"


def test_a_notebook_without_ids_gets_them():
    cell = {"cell_type": "markdown", "metadata": {}, "source": "a"}
    old = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [cell, dict(cell)]}
    assert [c.id for c in parse(normalise(parse(json.dumps(old)), STEM)).cells] == [
        "c98-01",
        "c98-02",
    ]


def test_two_cells_with_one_id_are_an_error():
    with pytest.raises(NotebookError, match="2 cells have the id 'c98-a'"):
        normal(new_markdown_cell("a", id="c98-a"), new_markdown_cell("b", id="c98-a"))


def test_only_known_metadata_stays():
    cell = code(
        "1",
        cell_id="c98-a",
        tags=["exercise"],
        exercise="c98-a",
        jupyter={"source_hidden": True, "outputs_hidden": True},
        execution={"iopub.status.idle": "2026-01-01"},
        collapsed=True,
    )
    nb = new_notebook(cells=[cell, code("2", cell_id="c98-b", tags=[])])
    nb.metadata.update(
        bigmodel_lab={"id": "c98"},
        title="Test",
        widgets={"state": {}},
        kernelspec={"name": "mine"},
        language_info={"name": "python", "version": "3.11.7"},
    )
    after = parse(normalise(nb, STEM))
    assert set(after.metadata) == {"bigmodel_lab", "title", "kernelspec", "language_info"}
    assert after.metadata.kernelspec.name == "python3"
    assert after.metadata.language_info == {"name": "python"}
    assert after.cells[0].metadata == {
        "tags": ["exercise"],
        "exercise": "c98-a",
        "jupyter": {"source_hidden": True},
    }
    assert after.cells[1].metadata == {}


def test_the_normal_form_as_text():
    text = normalise(
        new_notebook(cells=[code("'\u00e9'", stream("\u00e9\n"), cell_id="c98-a")]), STEM
    )
    assert text.endswith("}\n")
    assert not text.endswith("\n\n")
    assert "\u00e9" in text  # itself, not its escape
    assert '\n "cells"' in text
    assert normalise(parse(text), STEM) == text


def test_neighbouring_streams_merge_and_keep_their_place_beside_figures():
    figure = new_output("display_data", data={"image/png": "x", "text/plain": "<Figure>"})
    after = outputs_of(
        stream("a\n"), stream("warn\n", "stderr"), stream("b\n"), figure, stream("c"), stream("d\n")
    )
    assert [(o.get("name"), o.get("text")) for o in after] == [
        ("stdout", "a\nb\n"),
        ("stderr", "warn\n"),
        (None, None),
        ("stdout", "cd\n"),
    ]
    swapped = outputs_of(stream("warn\n", "stderr"), stream("a\n"), stream("b\n"))
    assert [o.name for o in swapped] == ["stdout", "stderr"]


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("10%\r55%\r100%\ndone\n", "100%\ndone\n"),
        ("100%\r9%\n", "9%0%\n"),  # as a terminal shows it
        ("dos\r\nline\r\n", "dos\nline\n"),
        ("two spaces  \n", "two spaces  \n"),
    ],
)
def test_carriage_returns_are_applied(written, stored):
    assert outputs_of(stream(written))[0].text == stored


def test_what_has_been_wiped_out_leaves_no_output():
    wiped = new_output("display_data", data={"text/plain": ""})
    assert outputs_of(stream("50% |###\r         \r", "stderr"), wiped, stream("")) == []
    assert [o.text for o in outputs_of(stream("a\n"), wiped, stream("b\n"))] == ["a\nb\n"]


def test_a_widget_view_is_left_out_beside_anything_that_lasts():
    view = {"model_id": "8f3b", "version_major": 2, "version_minor": 0}
    slider = new_output(
        "display_data", data={WIDGET: view, FRAMES: {"frames": []}, "text/plain": "Slider"}
    )
    assert set(outputs_of(slider)[0].data) == {FRAMES, "text/plain"}


def test_a_traceback_keeps_the_cells_lines_and_loses_colours_and_files():
    trace = [
        "\x1b[31m-----\x1b[39m",
        "\x1b[31mValueError\x1b[39m   Traceback",
        "\x1b[36mCell\x1b[39m In[1]",
        "\x1b[36mFile \x1b[39m~/lib/x.py:3",
        "ValueError: no",
    ]
    error = new_output("error", ename="ValueError", evalue="no", traceback=trace)
    after = normal(code("f()", error, cell_id="c98-f", tags=["raises-exception"]))[0].outputs[0]
    assert after.traceback == ["-----", "ValueError   Traceback", "Cell In[1]", "ValueError: no"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<<<<<<< HEAD\n", "not JSON"),
        ('{"nbformat": 3}', "format 4"),
        ("[]", "format 4"),
    ],
)
def test_what_is_no_notebook_is_refused(text, message):
    with pytest.raises(NotebookError, match=message):
        parse(text)


# ---- times that differ from run to run


def timed(time_text, other="1\n", source="print(now())", tags=("nbval-ignore-output",)):
    return normalise(
        new_notebook(
            cells=[
                code("print(1)", stream(other), cell_id="c98-a"),
                code(source, stream(time_text), cell_id="c98-time", count=2, tags=list(tags)),
            ]
        ),
        STEM,
    )


def test_new_times_alone_change_nothing():
    assert keep_times(timed("2 s\n"), timed("1 s\n"), STEM) == timed("1 s\n")


@pytest.mark.parametrize(
    "new",
    [timed("2 s\n", other="3\n"), timed("2 s\n", source="print(then())"), timed("2 s\n", tags=())],
)
def test_new_times_are_stored_with_any_other_change(new):
    assert keep_times(new, timed("1 s\n"), STEM) == new


def test_a_cell_without_outputs_gets_its_first_times():
    new = timed("2 s\n")
    nb = parse(new)
    for cell in nb.cells:
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            cell.outputs = []
    assert keep_times(new, normalise(nb, STEM), STEM) == new


# ---- check


def test_check_is_content_with_a_good_notebook():
    assert check_text(timed("1 s\n"), STEM) == []


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (code("1", cell_id="c98-a", count=None), "cell c98-a was not executed"),
        (
            code("1", cell_id="c98-a", count=7),
            "cell c98-a is number 1 and was executed as number 7",
        ),
        (code(" ", cell_id="c98-a"), "empty code cell"),
        (
            code("1", cell_id="c98-a", tags=["nbval-ignore-outptu"]),
            "unknown tag 'nbval-ignore-outptu'",
        ),
        (code("# NBVAL_SKIP\n1", cell_id="c98-a"), "says NBVAL_SKIP"),
        (code("open('/home/me/x')", cell_id="c98-a"), "names a path of one machine: /home/me/x"),
        (
            code("f", stream("/tmp/x1/y\n"), cell_id="c98-a"),
            "shows a path of one machine: /tmp/x1/y",
        ),
        (code("f", stream("C:\\Users\\me\n"), cell_id="c98-a"), "shows a path of one machine"),
        (code("f", stream("look\n", "stderr"), cell_id="c98-a"), "wrote to stderr: 'look'"),
        (
            code(
                "f",
                new_output("error", ename="ValueError", evalue="", traceback=[]),
                cell_id="c98-a",
            ),
            "stores ValueError and is not tagged raises-exception",
        ),
        (
            code(
                "f",
                new_output("execute_result", data={"text/plain": "<f at 0x7f2a1b00>"}),
                cell_id="c98-a",
            ),
            "memory address",
        ),
        (
            code(
                "f", new_output("display_data", data={WIDGET: {"model_id": "1"}}), cell_id="c98-a"
            ),
            "widget view",
        ),
    ],
)
def test_check_says_what_is_wrong(cell, message):
    text = normalise(new_notebook(cells=[cell]), STEM)
    problems = check_text(text, STEM)
    assert len(problems) == 1
    assert message in problems[0]


def test_check_lets_pass_what_only_looks_wrong():
    source = "# https://example.org/home/x and ./tmp/x and a/home/b are not paths of this machine"
    picture = new_output("display_data", data={"image/png": "/tmp/x/", "text/plain": "<Figure>"})
    error = new_output("error", ename="ValueError", evalue="no", traceback=["no"])
    cells = [
        code(source, picture, cell_id="c98-a", tags=["covers:S0-06", "hide-input"]),
        code("f()", error, cell_id="c98-b", count=2, tags=["raises-exception"]),
    ]
    assert check_text(normalise(new_notebook(cells=cells), STEM), STEM) == []


def test_check_finds_what_is_not_in_normal_form():
    text = timed("1 s\n")
    assert "line 2 is" in check_text(json.dumps(json.loads(text), indent=2), STEM)[0]
    nb = json.loads(text)
    nb["metadata"]["widgets"] = {"state": {}}
    assert any(
        "widget state of some other run" in problem for problem in check_text(json.dumps(nb), STEM)
    )
    assert "not JSON" in check_text(text[:-5], STEM)[0]


def test_check_says_in_one_line_that_nothing_was_executed():
    cells = [code("1", cell_id=f"c98-{k}", count=None) for k in range(9)]
    assert check_text(normalise(new_notebook(cells=cells), STEM), STEM) == [
        "9 code cells were not executed."
    ]


def test_check_on_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        notebooks.main(["check"])
    assert "no folder chapters or labs" in capsys.readouterr().err
    (tmp_path / "chapters").mkdir()
    path = tmp_path / "chapters" / "c98_test.ipynb"
    path.write_text(timed("1 s\n"), "utf-8")
    assert notebooks.main(["check"]) == 0
    path.write_text(timed("1 s\n") + "\n", "utf-8")
    assert notebooks.main(["check"]) == 1
    assert "chapters/c98_test.ipynb: it is not in normal form" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        notebooks.main(["check", "chapters/c99.ipynb"])


# ---- run, with real kernels

CHAPTER = {
    "c98-setup": "import matplotlib.pyplot as plt\nimport numpy as np\nfrom bigmodel_lab import show\nshow.use()",
    "c98-figure": """\
        fig, ax = plt.subplots()
        for power, role in enumerate(show.STYLE):
            ax.plot(np.arange(9.0) ** power, label=role, **show.STYLE[role])
        show.finish(ax, "step (1)", "loss (nat)")
        show.label_ends(ax)
        print("largest:", 8.0**2)""",
    "c98-slider": """\
        def draw(power):
            fig, ax = plt.subplots()
            ax.plot(np.arange(9.0) ** power)
            return show.finish(ax, "step (1)", "loss (nat)").figure
        show.explore(draw, power=[1, 2, 3], caption=lambda power: f"ends at {8**power}")""",
    "c98-numba": """\
        import numba
        @numba.njit(parallel=True)
        def total(x):
            s = 0.0
            for i in numba.prange(len(x)):
                s += x[i]
            return s
        total(np.arange(1000.0))""",
    "c98-progress": "for i in show.progress(range(3), 'epochs'):\n    print(i, end=' ')\nprint(); i;",
    "c98-time": "import time; print(time.time())",
    "c98-widget": "import ipywidgets; ipywidgets.IntSlider(3)",
    "c98-raises": "np.zeros((2, 3)) @ np.zeros((2, 3))",
}
TAGS = {"c98-time": ["nbval-ignore-output"], "c98-raises": ["raises-exception"]}


def fresh(cells):
    """A notebook as jupytext makes it: never executed, ids in the metadata."""
    nb = new_notebook(metadata={"bigmodel_lab": {"id": "c98"}})
    for cell_id, source in cells.items():
        metadata = {"id": cell_id, "tags": TAGS.get(cell_id, [])}
        nb.cells.append(new_code_cell(textwrap.dedent(source), metadata=metadata))
    return json.dumps(nb)


@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    """A notebook with everything that might differ from run to run, executed once; (path, exit status)."""
    path = tmp_path_factory.mktemp("chapters") / "c98_test.ipynb"
    path.write_text(fresh(CHAPTER), "utf-8")
    return path, notebooks.main(["run", str(path)])


def test_run_stores_outputs_that_check_accepts(chapter):
    path, status = chapter
    assert status == 0
    assert check_text(path.read_text("utf-8"), path.stem) == []
    cells = {cell.id: cell for cell in parse(path.read_text("utf-8")).cells}
    assert list(cells) == list(CHAPTER)
    stdout, figure = cells["c98-figure"].outputs
    assert stdout.text == "largest: 64.0\n"
    assert {"image/png", "image/svg+xml", "text/plain"} == set(figure.data)
    slider = cells["c98-slider"].outputs[0].data
    assert set(slider) == {FRAMES, "image/png", "text/plain"}
    assert cells["c98-numba"].outputs[0].data["text/plain"] == "499500.0"
    assert [output.text for output in cells["c98-progress"].outputs] == ["0 1 2 \n"]
    assert cells["c98-raises"].outputs[0].ename == "ValueError"


@pytest.mark.slow
def test_running_again_changes_no_byte(chapter):
    path, _ = chapter
    before, written = path.read_bytes(), path.stat().st_mtime_ns
    assert notebooks.main(["run", str(path)]) == 0
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == written
    assert notebooks.main(["run", "--fresh", str(path)]) == 0
    cells = zip(parse(before.decode()).cells, parse(path.read_text("utf-8")).cells, strict=True)
    assert [old.id for old, new in cells if old != new] == ["c98-time"]


def write(folder, name, **cells):
    path = folder / f"{name}.ipynb"
    path.write_text(fresh({f"{name}-{key}": source for key, source in cells.items()}), "utf-8")
    return path


def test_a_failing_cell_leaves_the_file_and_is_shown(tmp_path, capsys):
    path = write(
        tmp_path,
        "c97",
        ok="1 + 1",
        bad="def f():\n    raise ValueError('too wide')\nf()",
        after="2",
    )
    good = write(tmp_path, "c96", ok="print('fine')")
    before = path.read_bytes()
    assert notebooks.main(["run", "--jobs", "2", str(path), str(good)]) == 1
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.part")) == []
    out, err = capsys.readouterr()
    assert f"{path}: cell c97-bad raised an exception:" in err
    assert "    def f():\n        raise ValueError('too wide')" in err
    assert "ValueError: too wide" in err
    assert f"{path}: FAILED" in out
    assert f"{good}: written (1 cells" in out


def test_a_cell_that_hangs_and_a_kernel_that_dies(tmp_path, capsys):
    slow = write(tmp_path, "c95", slow="import time; time.sleep(60)")
    dead = write(tmp_path, "c94", dead="import os; os._exit(3)")
    assert notebooks.main(["run", "--jobs", "2", "--timeout", "2", str(slow), str(dead)]) == 1
    err = capsys.readouterr().err
    assert "cell c95-slow did not end within 2 s" in err
    assert "cell c94-dead killed its kernel" in err


def test_the_kernels_surroundings(tmp_path, monkeypatch):
    foreign = (
        tmp_path / "jupyter" / "kernels" / "python3"
    )  # as in a machine where another python3 is registered
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text(
        '{"argv": ["false"], "display_name": "x", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    source = """\
        import os, sys
        print(sys.executable, os.getcwd(), os.path.exists(os.environ["BIGMODEL_LAB_HOME"]), sep="|")
        print(*(os.environ[f"{n}_NUM_THREADS"] for n in ["OMP", "MKL", "OPENBLAS", "NUMBA"]), sep="|")
        print(os.environ["PYTHONHASHSEED"], os.environ["TQDM_DISABLE"], os.environ["IPYTHONDIR"] != "", sep="|")"""
    path = write(tmp_path, "c93", env=source)
    assert notebooks.main(["run", str(path)]) == 0
    where, threads, rest = parse(path.read_text("utf-8")).cells[0].outputs[0].text.splitlines()
    assert where == f"{sys.executable}|{tmp_path}|False"
    assert threads == "2|2|2|2"
    assert rest == "0|1|True"


def test_a_file_that_changes_meanwhile_is_left_alone(tmp_path, capsys):
    path = write(
        tmp_path, "c92", edit="from pathlib import Path; Path('c92.ipynb').write_text('mine')"
    )
    assert notebooks.main(["run", str(path)]) == 1
    assert path.read_text() == "mine"
    assert "the file changed while its cells ran" in capsys.readouterr().err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_kernels_and_leaves_the_files(tmp_path, sent):
    source = "import os, time; open('pid', 'w').write(str(os.getpid())); os.rename('pid', 'ready'); time.sleep(60)"
    path = write(tmp_path, "c91", wait=source)
    before = path.read_bytes()
    command = [sys.executable, "-m", "bigmodel_lab.book.notebooks", "run", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ready = tmp_path / "ready"
    _until(ready.exists)
    kernel = psutil.Process(int(ready.read_text()))
    os.kill(process.pid, sent)
    try:
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()  # no more than a formality if it has ended
        process.wait()
        process.stdout.close()
        process.stderr.close()
    assert process.returncode == 130
    assert "stopped: notebooks that had not finished are as they were" in err
    assert "Traceback" not in err
    _until(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c91.ipynb", "ready"]


def _until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_the_board_rewrites_one_line_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    board = notebooks.Board(screen)
    board.cell(Path("chapters/c98_test.ipynb"), 2, 5)
    assert screen.getvalue() == "\r\x1b[Kc98_test.ipynb: cell 2 of 5, 0 s"
    board.done(Path("chapters/c98_test.ipynb"), "unchanged")
    assert screen.getvalue().endswith("\r\x1b[Kchapters/c98_test.ipynb: unchanged (5 cells, 0 s)\n")


def test_the_frames_have_one_name():
    from bigmodel_lab.show import (
        explore,
    )  # the module is hidden behind the function of the same name

    assert sys.modules[explore.__module__].FRAMES == FRAMES
