"""What a failed run says: the rank that failed first, with its traceback or the stack it hung in.

`str(error)` holds nothing that changes from run to run, so that a notebook's stored output can be compared with it;
line numbers, stacks and what became of the other ranks stand in `error.report`.
"""

import dataclasses
import itertools
import linecache
import re
import signal
import sys
import time
import traceback

# What a rank says when a peer is gone is an effect of what happened elsewhere: first gloo, with an address and a port that
# tell nobody anything, then torch's check of collectives.
_GONE = re.compile(r"\[[^\]]*gloo[^\]]*\][^\n]*(?:closed by peer|reset by peer|Broken pipe)[^\n]*")
_LOST_PEER = re.compile(rf"{_GONE.pattern}|failed to pass monitoredBarrier")
# What torch says, in some 500 characters, if checks=True and the ranks' collectives differ.
_MISMATCH = re.compile(r"Detected mismatch between collectives.*", re.DOTALL)
_COLLECTIVE = re.compile(
    r"Rank (\d+) is running.*?OpType=(\w+)(?:, TensorShape=\[(.*?)\], TensorDtypes=(\w*))?"
)
# Frames that a reader of a traceback need not see: torch's wrappers, and what starts a rank.
_MACHINERY = re.compile(
    r"[/\\](site-packages[/\\]torch|multiprocessing)[/\\]"
    r"|bigmodel_lab[/\\]dist[/\\](_printer|_rank|_team|_torchrun|launch|magic)\.py$|^<(string|frozen)"
)
_RANK_MAIN = re.compile(r"^  File .*_rank\.py\", line \d+ in main$", re.MULTILINE)
_DUMPED_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


class RankError(RuntimeError):
    """A rank failed: `rank` is the one that failed first, `report` has its traceback and the fate of the others."""

    def __init__(self, message: str, rank: int | None = None, report: str = ""):
        super().__init__(message)
        self.rank, self.report = rank, report
        if report:
            self.add_note(report)  # plain Python and pytest print it below the message

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the ranks' story, without the frames of the launcher in the notebook's process."""
        return [f"{type(self).__name__}: {self}", self.report]


class RankTimeout(RankError):
    """A rank still ran after timeout_s: `rank` is the first such, `report` has the stack of each."""


RankError.__module__ = RankTimeout.__module__ = "bigmodel_lab.dist"  # printed as it is imported


@dataclasses.dataclass(frozen=True)
class Failure:
    """How a rank ended, if it did not end well."""

    rank: int
    time_s: float  # time.monotonic(), one clock for all processes of a machine
    summary: str  # one line
    detail: str  # traceback, or the last words of a process that died without one
    lost_peer: bool  # an effect of what happened on another rank


def describe(exception: BaseException) -> tuple[str, str, bool]:
    """Return the summary, the detail and the lost_peer of a `Failure` from an exception that ended fn on a rank."""
    link = whole = traceback.TracebackException.from_exception(exception)
    lost_peer = False
    while link is not None:
        lost_peer |= bool(_LOST_PEER.search(str(link)))
        known = [frame for frame in link.stack or () if not _MACHINERY.search(frame.filename)]
        link.stack = traceback.StackSummary.from_list(known) if known else None
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    message = _MISMATCH.sub("the ranks called different collectives", _plain(str(whole)))
    first_line = message.strip().partition("\n")[0]
    summary = f"{type(exception).__name__}: {first_line}".removesuffix(": ")
    detail = _MISMATCH.sub(lambda found: _what_differs(found[0]), _plain("".join(whole.format())))
    return summary, detail, lost_peer


def _plain(text: str) -> str:
    return _GONE.sub("lost the connection to another rank", text)


def _what_differs(message: str) -> str:
    calls = []
    for rank, op, shape, dtype in sorted(_COLLECTIVE.findall(message)):
        of = f" of shape [{shape}], {dtype.lower()}" if dtype else ""
        calls.append(f"rank {rank} called {op.lower()}{of}")
    return "the ranks called different collectives: " + ", but ".join(calls)


def stack(dump: str) -> str:
    """Return where the main thread of a rank was: "in all_reduce, called here:" and the frames that the reader knows.

    `dump` is what faulthandler wrote in the rank. It does so from C, hence also for a rank that is blocked there, and
    without source lines; those are looked up in this process, which knows the notebook's cells. "" if there is none.
    """
    threads = re.split(r"^(?=\S.*most recent call first)", dump, flags=re.MULTILINE)
    main = next(filter(_RANK_MAIN.search, threads), "")
    known, inside = [], ""
    for filename, line, name in reversed(_DUMPED_FRAME.findall(main)):
        if not _MACHINERY.search(filename):
            known.append(traceback.FrameSummary(filename, int(line), name))
            inside = ""
        elif not inside and "distributed" in filename and name != "wrapper":
            inside = f"in {name}, called "  # torch's function that the frame before called
    shown = "".join(traceback.StackSummary.from_list(known).format())
    return f"{inside}here:\n{shown}" if shown else ""


def death(rank: int, exitcode: int, log: str) -> Failure:
    """Describe a rank that ended without a word, from its exit code and what stands in its log."""
    if exitcode < 0:
        summary = f"killed by {signal.Signals(-exitcode).name}"
    else:
        summary = f"its process ended with exit code {exitcode} before fn returned"
    words, _, dump = log.partition("Fatal Python error:")
    where = stack(dump)
    detail = f"It was {where}" if where else ""
    if words.strip():
        detail += f"It wrote: {words.strip()}\n"
    if "gloo::EnforceNotMet" in words:
        detail += "dist.run(..., checks=True) says which collectives differ.\n"
    if exitcode == -9:
        detail += "On Linux SIGKILL often means that memory ran out.\n"
    return Failure(rank, time.monotonic(), summary, detail, bool(_LOST_PEER.search(words)))


def failed(failures: list[Failure], finished: list[int], running: list[int]) -> RankError:
    """Choose the root among `failures` and say what became of the other ranks."""
    root = min(failures, key=lambda f: (f.lost_peer, f.time_s))
    alike = [f.rank for f in failures if f.summary == root.summary]
    if len(alike) > 1:  # which of them was first is chance: let the lowest speak
        root = next(f for f in failures if f.rank == alike[0])
        message = f"{listed(alike)} failed alike: {root.summary}"
    else:
        message = f"rank {root.rank} failed first: {root.summary}"
    report = f"On rank {root.rank}:\n{root.detail.rstrip()}\n" if root.detail else ""
    for f in failures:
        if f.rank not in alike:
            lost = "then lost the connection to a rank that was gone"
            report += f"Rank {f.rank} {lost if f.lost_peer else f'failed too: {f.summary}'}.\n"
    if finished:
        vain = ": a collective needs every rank" if root.lost_peer else ""
        report += f"{listed(finished).capitalize()} had finished{vain}.\n"
    if running:
        report += f"{listed(running).capitalize()} still ran when everything was stopped.\n"
    return RankError(message, root.rank, readable(report.rstrip()))


def timed_out(dumps: dict[int, str], finished: list[int], timeout_s: float) -> RankTimeout:
    """Say where each rank that still ran was, from {rank: what faulthandler wrote for it}."""
    message = f"{listed(list(dumps))} still ran after {timeout_s:g} s"
    report = []
    for rank, dump in dumps.items():
        report.append(f"Rank {rank} was {stack(dump) or 'outside fn, or did not answer.'}".rstrip())
    if finished:
        message += f"; {listed(finished)} had finished"
        report.append(f"{listed(finished).capitalize()} had finished.")
    return RankTimeout(message, min(dumps), readable("\n".join(report)))


def readable(text: str) -> str:
    """Name notebook cells as Jupyter does, `Cell In[3], line 2`, and not by a temporary file that does not exist."""
    ipython = sys.modules.get("IPython")
    compiler = getattr(ipython and ipython.get_ipython(), "compile", None)
    # IPython's own way from the temporary file to ("Cell", "In[3]"), or None
    cell_of = getattr(compiler, "format_code_name", lambda filename: None)

    def place(match: re.Match) -> str:
        filename, line = match.groups()
        cell = filename if filename.startswith("Cell In[") else " ".join(cell_of(filename) or ())
        return f"{cell}, line {line}" if cell else match[0]

    return re.sub(r'File "([^"]+)", line (\d+)(?:, in <module>)?', place, text)


def unsaved_sources() -> dict:
    """Return linecache's entries for code that is in no file, such as a cell's, so that ranks can show it too."""
    entries = linecache.cache.items()
    return {name: entry for name, entry in entries if len(entry) == 4 and entry[1] is None}


def print_grouped(rank: int, printed: list[tuple[str, str]]) -> None:
    """Print what a rank other than 0 printed, [(stream, text), ...], each line behind the rank's name."""
    for stream, chunks in itertools.groupby(printed, key=lambda chunk: chunk[0]):
        text = "".join(text for _, text in chunks).removesuffix("\n")
        lines = [f"[rank {rank}] {line}" for line in text.split("\n")]
        print(*lines, sep="\n", file=getattr(sys, stream), flush=True)


def listed(ranks: list[int]) -> str:
    """Say ranks in words, at least one: "rank 0", "ranks 0, 1 and 2"."""
    *most, last = map(str, ranks)
    return f"ranks {', '.join(most)} and {last}" if most else f"rank {last}"
