"""Execute notebooks in place, store them in one normal form, and say what is wrong with them.

    python -m bigmodel_lab.book.notebooks run                       every notebook in chapters/ and labs/
    python -m bigmodel_lab.book.notebooks run chapters/c05_x.ipynb  one of them
    python -m bigmodel_lab.book.notebooks check                     what is wrong, in words (`make lint`)

`run` starts one kernel a notebook, in the notebook's folder and in this interpreter's environment, with 2 threads and
an empty BIGMODEL_LAB_HOME, and writes the file only if its bytes change. A notebook that fails stays as it was.

**Normal form.** nbformat 4.5, one kernelspec, no versions, no times, the metadata in `CELL_METADATA` and
`NOTEBOOK_METADATA` and no other, stable cell ids. What exists only while a kernel lives is left out: widget views and
widget state, progress bars, the frames of a traceback that lie in files. Running a notebook twice changes no byte.

**What times say.** A cell tagged `nbval-ignore-output` prints something different in every run, such as seconds. If
such outputs are all that a run would change, the stored ones are kept, so that git stays clean; as soon as anything
else changes, all outputs are stored anew and belong to one run. `--fresh` stores them in any case.

**Writing a chapter.** Notebooks can be written in JupyterLab, or as text with jupytext and then executed:

    # ---
    # jupyter:
    #   bigmodel_lab: {id: c05, covers: [S0-06]}
    # ---

    # %% [markdown] id="c05-question"
    # # What is a gradient?

    # %% id="c05-forward" tags=["covers:S0-06"]
    1 + 1

    jupytext --to ipynb c05_networks.py -o chapters/c05_networks.ipynb
    python -m bigmodel_lab.book.notebooks run chapters/c05_networks.ipynb

jupytext puts `id="..."` into the cell's metadata and gives the cell a random id; the normal form makes the first one
the cell's id. To edit later: `jupytext --to py:percent chapters/c05_networks.ipynb -o x.py`, edit, and
`jupytext --update --to ipynb x.py -o chapters/c05_networks.ipynb`, which keeps ids and outputs. The text is not kept.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbformat import NotebookNode

FOLDERS = ("chapters", "labs")
FRAMES = "application/vnd.bigmodel-lab.frames+json"  # what show.explore leaves for the book
WIDGET = "application/vnd.jupyter.widget-view+json"
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
NOT_COMPARED = (
    *PICTURES,
    FRAMES,
    WIDGET,
)  # last decimals of pictures differ between processors; conftest.py

CELL_METADATA = {"tags", "exercise", "jupyter"}  # of "jupyter", only source_hidden
NOTEBOOK_METADATA = {"bigmodel_lab", "title"}
TAGS = {
    "hide-input",
    "remove-cell",
    "solution",
    "exercise",
    "nbval-ignore-output",
    "raises-exception",
}
TAG_FAMILIES = ("covers:", "corrects:")

SLUG = re.compile(r"[A-Za-z]\w*(-[A-Za-z0-9]+)+", re.ASCII)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
ANSI = re.compile(r"\x1b\[[0-9;]*m")
MACHINE_PATH = re.compile(
    r"(?<![\w.:/\\-])(?:/(?:home|root|tmp|Users|private|var/folders)/|[A-Za-z]:\\+Users\\+)\S+"
)
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
NBVAL_COMMENT = re.compile(r"^\s*#\s*(NBVAL_\w+|PYTEST_VALIDATE_IGNORE_OUTPUT)\s*$", re.MULTILINE)


class NotebookError(Exception):
    """A notebook that could not be read or executed; the message says where and why."""


def find(paths: Iterable[str | Path] = ()) -> list[Path]:
    """Return the notebooks among `paths` (files or folders), or all of chapters/ and labs/ if there are none.

    Raises NotebookError for a path that does not exist or is not a notebook.
    """
    paths = [Path(p) for p in paths]
    if not paths:
        paths = [Path(folder) for folder in FOLDERS if Path(folder).is_dir()]
        if not paths:
            raise NotebookError(
                f"no folder {' or '.join(FOLDERS)} in {Path.cwd()}: go to the top of the checkout."
            )
    found = []
    for path in paths:
        if path.is_dir():
            found += sorted(path.glob("*.ipynb"))
        elif path.suffix == ".ipynb" and path.is_file():
            found.append(path)
        else:
            raise NotebookError(f"{path} is neither a notebook (.ipynb) nor a folder.")
    return list(dict.fromkeys(found))


def parse(text: str) -> NotebookNode:
    """Return the notebook that `text` holds. Raises NotebookError if it is not a notebook of format 4.

    nbformat's own reader renames duplicate ids and invents missing ones in passing; here both must be seen.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise NotebookError(f"not JSON: {error}. A conflict that git left in it?") from None
    if not isinstance(data, dict) or data.get("nbformat") != 4:
        raise NotebookError("not a notebook of format 4: open it in JupyterLab and save it again.")
    return nbformat.v4.reads(text)


# ---- normal form


def normalise(nb: NotebookNode, stem: str) -> str:
    """Return the notebook's normal form as text; `nb` is not changed.

    Parameters
    ----------
    nb : notebook as `parse` or nbclient return it
    stem : the file's name without ".ipynb", such as "c05_networks": new cell ids start with "c05"
           unless the notebook's metadata names an id

    Raises NotebookError if two cells have the same id.
    """
    nb = nbformat.from_dict(json.loads(json.dumps(nb)))
    notebook_id = nb.metadata.get("bigmodel_lab", {}).get("id") or stem.split("_")[0]
    nb.metadata = {
        **{key: value for key, value in nb.metadata.items() if key in NOTEBOOK_METADATA},
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    nb.nbformat, nb.nbformat_minor = 4, 5
    _name_cells(nb.cells, notebook_id)
    for cell in nb.cells:
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden")
        cell.metadata = {
            key: value for key, value in cell.metadata.items() if key in CELL_METADATA - {"jupyter"}
        }
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if hidden:
            cell.metadata["jupyter"] = {"source_hidden": True}
        if cell.cell_type == "code":
            cell.setdefault("execution_count", None)
            cell.outputs = _normal_outputs(cell.get("outputs", []))
    try:
        nbformat.validate(nb)
    except nbformat.ValidationError as error:
        raise NotebookError(f"not a valid notebook: {error.message}") from None
    return nbformat.writes(nb) + "\n"


def _name_cells(cells: list[NotebookNode], notebook_id: str) -> None:
    """Give every cell a stable id: its own if that is a slug, else one made from the notebook's id and a counter."""
    for cell in cells:
        cell.id = (
            cell.metadata.get("id") or cell.get("id") or ""
        )  # the first one is where jupytext puts it
    kept = [cell.id for cell in cells if _is_slug(cell.id)]
    for cell_id in kept:
        if kept.count(cell_id) > 1:
            raise NotebookError(
                f"{kept.count(cell_id)} cells have the id {cell_id!r}: give each its own, since the Chinese edition "
                "and the list of cells that are not compared name cells by id."
            )
    numbers = [
        int(m[1])
        for cell_id in kept
        if (m := re.fullmatch(re.escape(notebook_id) + r"-(\d+)", cell_id))
    ]
    number = max(numbers, default=0)
    for cell in cells:
        if not _is_slug(cell.id):
            number += 1
            cell.id = f"{notebook_id}-{number:02d}"


def _is_slug(cell_id: str) -> bool:
    """Whether somebody chose this id: "c05-forward", not JupyterLab's "fd2b9c1a" or a UUID."""
    return len(cell_id) <= 64 and bool(SLUG.fullmatch(cell_id)) and not UUID.fullmatch(cell_id)


def _normal_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Merge neighbouring streams by name, apply carriage returns, and drop what only a live kernel can show."""
    merged: list[NotebookNode] = []
    neighbours: dict[str, NotebookNode] = {}  # streams since the last output of another kind
    for output in outputs:
        if _is_empty(output):
            continue
        if output.output_type != "stream":
            neighbours = {}
            merged.append(output)
        elif output.name in neighbours:
            neighbours[output.name].text += output.text
        else:
            neighbours[output.name] = output
            # stdout first: which of the two arrives first is a matter of timing
            merged.insert(
                len(merged) - (output.name == "stdout" and "stderr" in neighbours), output
            )
    for output in merged:
        if output.output_type == "stream":
            output.text = "\n".join(
                _overwrite(line) for line in output.text.replace("\r\n", "\n").split("\n")
            )
        elif output.output_type == "error":
            frames = [ANSI.sub("", frame) for frame in output.traceback]
            output.traceback = [frame for frame in frames if not frame.startswith("File ")]
        elif len(output.data) > 1:  # a view alone stays, so that `check` can speak of it
            output.data.pop(WIDGET, None)
    return [output for output in merged if not _is_empty(output)]


def _overwrite(line: str) -> str:
    """Return what a terminal shows after `line`: text behind a carriage return overwrites from the left."""
    shown, *rest = line.split("\r")
    for text in rest:
        shown = text + shown[len(text) :]
    return shown.rstrip() if rest else line


def _is_empty(output: NotebookNode) -> bool:
    """Whether nothing is to be seen, as after a progress bar that has been taken away."""
    if output.output_type == "stream":
        return not output.text
    return (
        output.output_type == "display_data"
        and set(output.data) <= {"text/plain"}
        and not any(output.data.values())
    )


# ---- execute


def environment(threads: int, home: str | Path) -> dict[str, str]:
    """Return the environment variables of a kernel whose outputs are stored or compared.

    Parameters
    ----------
    threads : threads for BLAS, torch and numba; outputs are stored with 2 and compared with 1
    home : empty folder; what a chapter keeps (the ledger of predictions) goes to a new folder in it, and so do
        IPython's own files

    The reader's own IPython and matplotlib settings must not reach the outputs.
    """
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys(counts, str(threads)),
        "BIGMODEL_LAB_HOME": str(Path(home, "bigmodel-lab")),
        "IPYTHONDIR": str(Path(home, "ipython")),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "OMP_WAIT_POLICY": "PASSIVE",  # where cores are shared, 2 spinning threads made torch 20 times slower
        "OPENBLAS_THREAD_TIMEOUT": "4",  # NumPy's threads spin after a product: numba's second thread gained nothing
        "PYTHONHASHSEED": "0",
        "TQDM_DISABLE": "1",
    }


class Runner:
    """Executes notebooks, each with a kernel of its own; `stop` ends every kernel from another thread."""

    def __init__(
        self,
        *,
        threads: int = 2,
        timeout_s: int = 180,
        show: Callable[[Path, int, int], None] | None = None,
    ):
        """
        Parameters
        ----------
        threads : see `environment`
        timeout_s : the longest time a cell may take, in seconds
        show : called as show(path, k, n) when code cell k of n starts (k from 1)
        """
        self.threads, self.timeout_s, self.show = threads, timeout_s, show
        self._clients: list = []
        self._stopped = False

    def execute(self, path: Path, nb: NotebookNode) -> NotebookNode:
        """Run the cells of `nb` from top to bottom and return it with the new outputs.

        Raises NotebookError naming the cell that failed, hung or killed its kernel.
        """
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

        codes = [cell.id for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
        now = None  # the cell that runs

        def on_cell_execute(cell, cell_index):
            nonlocal now
            now = cell
            if self._stopped:
                raise NotebookError("stopped")
            if self.show:
                self.show(path, codes.index(cell.id) + 1, len(codes))

        with tempfile.TemporaryDirectory(
            prefix="bigmodel-lab-", ignore_cleanup_errors=True
        ) as home:
            client = NotebookClient(
                nb,
                timeout=self.timeout_s,
                kernel_name="python3",
                kernel_manager_class=_kernel_manager_class(),
                store_widget_state=False,
                record_timing=False,
                shutdown_kernel="immediate",
                extra_arguments=["--log-level=40"],  # errors only, on the terminal
                on_cell_execute=on_cell_execute,
                resources={"metadata": {"path": str(path.parent)}},
            )
            client.log.disabled = True  # it repeats what the messages below say
            self._clients.append(client)
            try:
                return asyncio.run(client.async_execute(env=environment(self.threads, home)))
            except CellExecutionError:
                why = "raised an exception"
                trace = next(out.traceback for out in now.outputs if out.output_type == "error")
            except CellTimeoutError:
                why, trace = f"did not end within {self.timeout_s} s (--timeout)", []
            except DeadKernelError:
                why, trace = "killed its kernel: out of memory, or a crash in compiled code", []
        if self._stopped:
            raise NotebookError("stopped")
        source = "\n".join("    " + line for line in now.source.splitlines())
        trace = ANSI.sub("", "\n".join(trace))
        raise NotebookError(f"cell {now.id} {why}:\n\n{source}\n\n{trace}".rstrip())

    def stop(self) -> None:
        """Kill all kernels; every `execute` under way then raises NotebookError."""
        self._stopped = True
        for client in self._clients:
            group = getattr(getattr(client.km, "provisioner", None), "pgid", None)
            if group:
                try:
                    os.killpg(group, signal.SIGKILL)
                except ProcessLookupError:
                    pass


def _kernel_manager_class():
    """Return a kernel manager that runs this very interpreter, whatever kernels named python3 are registered."""
    import ipykernel.kernelspec
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class Here(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            return KernelSpec(
                resource_dir=ipykernel.kernelspec.RESOURCES,
                **ipykernel.kernelspec.get_kernel_dict(),
            )

    class HereManager(AsyncKernelManager):
        def __init__(self, **options):
            super().__init__(kernel_spec_manager=Here(), **options)

    return HereManager


def keep_times(new: str, old: str, stem: str) -> str:
    """Return `old` if it differs from `new` only in outputs of unchanged `nbval-ignore-output` cells, else `new`.

    Both are notebooks in normal form. Such a cell that has no outputs in `old` gets its first ones.
    """
    stored = {cell.id: cell.get("outputs", []) for cell in parse(old).cells if "id" in cell}
    merged = parse(new)
    for cell in merged.cells:
        if _is_ignored(cell) and stored.get(cell.id):
            cell.outputs = stored[cell.id]
    return old if normalise(merged, stem) == old else new


def run_one(path: Path, runner: Runner, *, fresh: bool = False) -> bool:
    """Execute one notebook and store it in normal form; return whether the file changed.

    Raises NotebookError, with the file as it was, if a cell fails or the file changes meanwhile.
    """
    before = path.read_text("utf-8")
    nb = parse(normalise(parse(before), path.stem))
    after = normalise(runner.execute(path, nb), path.stem)
    if not fresh:
        after = keep_times(after, before, path.stem)
    if path.read_text("utf-8") != before:
        raise NotebookError(
            "the file changed while its cells ran: it was left as it is. Run again."
        )
    if after == before:
        return False
    part = path.with_name(f".{path.name}.part")
    part.write_text(after, "utf-8", newline="\n")
    os.replace(part, path)
    return True


class Board:
    """Shows which cell of which notebook runs: one line rewritten in place on a terminal, else nothing until the end."""

    def __init__(self, out=None):
        self.out = out or sys.stdout
        self.live = self.out.isatty()
        self.lock = threading.Lock()
        self.running: dict[Path, tuple[int, int]] = {}
        self.started: dict[Path, float] = {}

    def cell(self, path: Path, k: int, n: int) -> None:
        with self.lock:
            self.started.setdefault(path, time.monotonic())
            self.running[path] = (k, n)
        self.draw()

    def draw(self) -> None:
        if not self.live:
            return
        with self.lock:
            now = time.monotonic()
            parts = [
                f"{p.name}: cell {k} of {n}, {now - self.started[p]:.0f} s"
                for p, (k, n) in self.running.items()
            ]
            self.out.write("\r\x1b[K" + "   ".join(parts)[:118])
            self.out.flush()

    def done(self, path: Path, what: str) -> None:
        with self.lock:
            _, n = self.running.pop(path, (0, 0))
            seconds = time.monotonic() - self.started.get(path, time.monotonic())
            clear = "\r\x1b[K" if self.live else ""
            print(f"{clear}{path}: {what} ({n} cells, {seconds:.0f} s)", file=self.out, flush=True)


def run(paths: list[Path], *, jobs: int, timeout_s: int, fresh: bool) -> int:
    """Execute notebooks, `jobs` at a time, and return the exit status: 0, 1 if one failed, 130 if interrupted."""
    board = Board()
    runner = Runner(timeout_s=timeout_s, show=board.cell)
    failures: dict[Path, str] = {}
    pool = ThreadPoolExecutor(jobs)
    try:
        waiting = {pool.submit(run_one, path, runner, fresh=fresh): path for path in paths}
        ticker = threading.Thread(target=_tick, args=(board, waiting), daemon=True)
        ticker.start()
        for future in as_completed(waiting):
            path = waiting[future]
            try:
                board.done(path, "written" if future.result() else "unchanged")
            except NotebookError as error:
                failures[path] = str(error)
            except Exception:  # our own bug or a broken installation: the other notebooks still run
                failures[path] = traceback.format_exc()
            if path in failures:
                board.done(path, "FAILED, the file is as it was")
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        runner.stop()
        pool.shutdown(wait=True)
        print("\nstopped: notebooks that had not finished are as they were", file=sys.stderr)
        return 130
    for path, why in failures.items():
        print(f"\n{path}: {why}", file=sys.stderr)
    return bool(failures)


def _tick(board: Board, waiting) -> None:
    """Bring the seconds on the board up to date."""
    while board.live and not all(future.done() for future in waiting):
        time.sleep(1)
        board.draw()


# ---- check


def check_text(text: str, stem: str) -> list[str]:
    """Return what is wrong with a stored notebook, one sentence each; an empty list if nothing is."""
    try:
        nb = parse(text)
        normal = normalise(nb, stem)
    except NotebookError as error:
        return [str(error)]
    problems = []
    nb_ids = parse(normal).cells  # the same cells under the ids that they will have
    expected = 0
    never = [c for c in nb.cells if c.cell_type == "code" and c.get("execution_count") is None]
    if len(never) > 3:
        problems.append(f"{len(never)} code cells were not executed.")
    for cell, named in zip(nb.cells, nb_ids, strict=True):
        where = f"cell {named.id}"
        unknown = [
            t
            for t in cell.metadata.get("tags", [])
            if t not in TAGS and not t.startswith(TAG_FAMILIES)
        ]
        if unknown:
            known = ", ".join(sorted(TAGS))
            problems.append(
                f"{where} has the unknown tag {unknown[0]!r}. Known: {known}, {'..., '.join(TAG_FAMILIES)}..."
            )
        if match := MACHINE_PATH.search(cell.source):
            problems.append(f"{where} names a path of one machine: {match[0]}")
        if cell.cell_type != "code":
            continue
        if match := NBVAL_COMMENT.search(cell.source):
            problems.append(
                f"{where} says {match[1]}: use the tag nbval-ignore-output and tests/uncompared.toml."
            )
        if not cell.source.strip():
            problems.append(f"{where} is an empty code cell: delete it.")
            continue
        expected += 1
        if cell.get("execution_count") is None:
            if len(never) <= 3:
                problems.append(f"{where} was not executed.")
        elif cell.execution_count != expected:
            problems.append(
                f"{where} is number {expected} and was executed as number {cell.execution_count}."
            )
        for output in cell.get("outputs", []):
            problems += [f"{where} {what}" for what in _output_problems(cell, output)]
    if nb.metadata.get("widgets"):
        problems.append("it holds the widget state of some other run.")
    if text != normal:
        problems.append(f"it is not in normal form; {_first_difference(text, normal)}.")
    return problems


def _output_problems(cell: NotebookNode, output: NotebookNode) -> list[str]:
    """Return what is wrong with one stored output, worded to follow "cell c05-x"."""
    problems = []
    if output.output_type == "error":
        if "raises-exception" not in cell.metadata.get("tags", []):
            problems.append(f"stores {output.ename} and is not tagged raises-exception.")
        texts = [output.evalue, *output.traceback]
    elif output.output_type == "stream":
        if output.name == "stderr":
            problems.append(
                f"wrote to stderr: {output.text.strip()[:200]!r}. Mend the cause of a warning."
            )
        texts = [output.text]
    else:
        if WIDGET in output.data:
            problems.append("stores a widget view, whose model is gone.")
        # not in the bytes of a picture, where anything may stand
        texts = [
            json.dumps(v, ensure_ascii=False)
            for k, v in output.data.items()
            if k not in ("image/png", "image/jpeg")
        ]
    for text in texts:
        if match := MACHINE_PATH.search(text):
            problems.append(f"shows a path of one machine: {match[0][:80]}")
        if match := ADDRESS.search(text):
            problems.append(f"shows a memory address, which differs in every run: {match[0]}")
    return problems


def _first_difference(text: str, normal: str) -> str:
    """Return where two texts part, in words."""
    lines = text.split("\n"), normal.split("\n")
    for number, (is_, should) in enumerate(zip(*lines, strict=False), 1):
        if is_ != should:
            return f"line {number} is {is_.strip()[:60]!r}, not {should.strip()[:60]!r}"
    return f"it has {len(lines[0])} lines, not {len(lines[1])}"


def check(paths: list[Path]) -> int:
    """Print what is wrong with each notebook and return the exit status."""
    bad = 0
    for path in paths:
        problems = check_text(path.read_text("utf-8"), path.stem)
        bad += bool(problems)
        for problem in problems:
            print(f"{path}: {problem}", file=sys.stderr)
    if bad:
        print(
            f"not in order: {bad} of {len(paths)}; most of it is mended by: make notebooks",
            file=sys.stderr,
        )
    else:
        print(f"notebooks in normal form: {len(paths)}")
    return bool(bad)


# ---- what is compared


def _is_ignored(cell: NotebookNode) -> bool:
    return "nbval-ignore-output" in cell.metadata.get("tags", [])


def compared(cell: NotebookNode) -> bool | None:
    """Whether `make test` compares what this cell puts out; None if it puts out nothing.

    A picture is run and not compared, and the "<Figure size ...>" beside it says nothing about the result. A cell
    counts if it prints or shows a value besides its pictures. A slider counts if its captions were computed: they
    stand in its text, one line a frame.
    """
    if cell.cell_type != "code" or not (cell.get("outputs") or _is_ignored(cell)):
        return None
    return not _is_ignored(cell) and any(map(_says_something, cell.outputs))


def _says_something(output: NotebookNode) -> bool:
    if output.output_type in ("stream", "error"):
        return True
    if FRAMES in output.data:
        return "\n" in output.data.get("text/plain", "")
    return not set(output.data) & {*PICTURES, WIDGET}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="More: python -m pydoc bigmodel_lab.book.notebooks",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    doing = verbs.add_parser("run", help="execute in place and store in normal form")
    doing.add_argument("--jobs", type=int, default=1, help="notebooks at a time (default 1)")
    doing.add_argument(
        "--timeout", type=int, default=180, metavar="S", help="longest time for a cell in seconds"
    )
    doing.add_argument(
        "--fresh", action="store_true", help="store new times even if nothing else changed"
    )
    looking = verbs.add_parser("check", help="say what is wrong, change nothing")
    for verb in (doing, looking):
        verb.add_argument(
            "paths", nargs="*", type=Path, help="notebooks or folders (default: chapters labs)"
        )
    options = parser.parse_args(argv)
    try:
        paths = find(options.paths)
    except NotebookError as error:
        parser.error(str(error))
    if options.verb == "check":
        return check(paths)
    return run(paths, jobs=max(1, options.jobs), timeout_s=options.timeout, fresh=options.fresh)


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # ends kernels and leaves files, as Ctrl-C does
    sys.exit(main())
