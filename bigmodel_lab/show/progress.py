"""Progress of long work: shown while it runs, gone when it is done.

for epoch in show.progress(range(20), "epochs"):
    ...
"""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(iterable: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items of `iterable` and show how many have passed, at what rate, and how long the rest will take.

    Work of less than half a second shows nothing, and so does any work if the environment has TQDM_DISABLE=1, as when
    notebooks are stored and compared. In a notebook the line stands apart from what the loop prints; in a terminal it
    goes to stderr.

    Parameters
    ----------
    iterable : anything to loop over
    what : what is counted, in the plural: "epochs", "batches"
    total : how many there will be, if `len(iterable)` does not say
    """
    notebook = "ipykernel" in sys.modules and _in_kernel()
    return iter(
        tqdm(
            iterable,
            desc=what,
            total=total,
            unit=f" {what}",
            leave=False,
            delay=0.5,
            ncols=70 if notebook else None,
            dynamic_ncols=not notebook,
            file=_Line() if notebook else sys.stderr,
        )
    )


def _in_kernel() -> bool:
    """Whether this code runs in a cell of a notebook, and not in a terminal or in a rank that a cell started."""
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


class _Line:
    """A line among a cell's outputs that can be rewritten; what `tqdm` takes for a terminal.

    It is an output of its own and no stream: a bar in stdout would end up in the lines that the loop prints.
    """

    encoding = "utf-8"  # tqdm then draws blocks instead of "#"

    def __init__(self):
        self._shown = (
            None  # set when there is something to show, so that short work leaves no trace
        )

    def write(self, text: str) -> None:
        from IPython.display import display

        line = {"text/plain": text.strip("\r\n ")}
        if self._shown:
            self._shown.update(line, raw=True)
        elif line["text/plain"]:
            self._shown = display(line, raw=True, display_id=True)

    def flush(self) -> None:
        """Do nothing: every write is shown at once."""
