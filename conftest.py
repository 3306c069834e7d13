"""How pytest runs notebooks (nbval 0.11), and where tests may write.

`pytest --nbval` executes chapters/ and labs/ and compares what every cell puts out with what is stored: text exactly,
pictures not at all (their last decimals differ between processors). tests/uncompared.toml lists what is not compared.
What a cell writes to stderr is compared too, and `make lint` allows none in a stored notebook: a warning that shows up
in a chapter fails.
"""

import difflib
import os
import queue
import signal
import tempfile
import time
from pathlib import Path

from nbval import kernel, plugin

from bigmodel_lab.book.notebooks import ANSI, FOLDERS, NOT_COMPARED, environment

ROOT = Path(__file__).resolve().parent
NOTEBOOK_FOLDERS = [ROOT / folder for folder in FOLDERS]
HOME = tempfile.TemporaryDirectory(prefix="bigmodel-lab-tests-", ignore_cleanup_errors=True)

os.environ["BIGMODEL_LAB_HOME"] = HOME.name  # no test writes into the reader's own ledger
os.environ["TQDM_DISABLE"] = "1"
# Pools that spin while they wait slow each other down many times. OpenBLAS reads its variable when it is loaded, so this
# one reaches the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

# A shell that starts a job in the background makes it ignore Ctrl-C, and every process that it starts: tests of Ctrl-C
# would wait for ever. nohup make test & is such a job.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path):
    """Collect no notebook outside chapters/ and labs/, such as the ones that book/ and .ipynb_checkpoints/ hold."""
    if collection_path.suffix == ".ipynb" and collection_path.parent not in NOTEBOOK_FOLDERS:
        return True
    return None  # others may have a say


def pytest_terminal_summary(terminalreporter):
    """Print what tests/test_compared_cells.py counted."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "compared cells":
                terminalreporter.write_line(value)


def pytest_unconfigure():
    HOME.cleanup()


# ---- nbval: each kernel has its own empty home and ONE thread. Outputs were stored with two, so that a notebook which
# passes has shown that its results do not depend on the number of threads.
_start_new_kernel = kernel.start_new_kernel


def start_new_kernel(*args, **options):
    home = tempfile.mkdtemp(dir=HOME.name)
    return _start_new_kernel(*args, env=environment(threads=1, home=home), **options)


kernel.start_new_kernel = start_new_kernel


# ---- nbval issue 194: it turns history off, and IPython then forgets that a trailing ";" hides a value.
def execute_cell_input(self, cell_input, allow_stdin=None):
    return self.kc.execute(
        cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
    )


kernel.RunningKernel.execute_cell_input = execute_cell_input


# ---- A dead kernel answers nothing: say so within a second instead of waiting until the cell's time is over.
_get_message = kernel.RunningKernel.get_message


def get_message(self, stream, timeout=None):
    end = time.monotonic() + (1e9 if timeout is None else timeout)
    while True:
        try:
            return _get_message(self, stream, timeout=min(1.0, max(0.0, end - time.monotonic())))
        except queue.Empty:
            if not self.is_alive():
                raise RuntimeError(
                    "the kernel died: out of memory, or a crash in compiled code"
                ) from None
            if time.monotonic() >= end:
                raise


kernel.RunningKernel.get_message = get_message


# ---- Pictures are run, not compared; and a cell goes by its id, not by its number.
_init, _collect = plugin.IPyNbFile.__init__, plugin.IPyNbFile.collect


def __init__(self, *args, **options):
    _init(self, *args, **options)
    self.skip_compare += NOT_COMPARED


def collect(self):
    for item in _collect(self):
        options = {"cell_num": item.cell_num, "cell": item.cell, "options": item.options}
        yield plugin.IPyNbCell.from_parent(self, name=item.cell.get("id", item.name), **options)


plugin.IPyNbFile.__init__ = __init__
plugin.IPyNbFile.collect = collect


# ---- What differs, line by line; nbval names the kinds of output that are missing, and shows long texts in one line.
_compare_outputs = plugin.IPyNbCell.compare_outputs


def compare_outputs(self, test, ref, skip_compare=None):
    if _compare_outputs(self, test, ref, skip_compare):
        return True
    diff = difflib.unified_diff(
        _lines(ref), _lines(test), "stored in the notebook", "put out now", lineterm="", n=3
    )
    self.comparison_traceback = list(diff)
    return False


def _lines(outputs):
    """Return outputs as lines, each kind under a line such as "[stdout]"; the text of pictures is left out."""
    lines = []
    for output in outputs:
        if output.output_type == "stream":
            parts = {output.name: output.text}
        elif output.output_type == "error":
            parts = {"error": f"{output.ename}: {output.evalue}"}
        else:
            parts = {kind: value for kind, value in output.data.items() if kind not in NOT_COMPARED}
        for kind, text in parts.items():
            lines += [f"[{kind}]", *ANSI.sub("", str(text)).splitlines()]
    return lines


def reportinfo(self):
    return self.path, 0, f"{self.path.relative_to(ROOT)}::{self.name}"


plugin.IPyNbCell.compare_outputs = compare_outputs
plugin.IPyNbCell.reportinfo = reportinfo
