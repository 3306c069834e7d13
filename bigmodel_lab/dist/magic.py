"""The cell magic %%ranks: run a cell on every rank.

    %load_ext bigmodel_lab.dist

    %%ranks 2 --out sums
    x = torch.full((3,), float(rank))
    dist.all_reduce(x)
    x.tolist()                      # the last expression is the rank's result: sums == [[1.0, 1.0, 1.0], ...]

On a rank the cell finds `rank`, `ranks`, `torch`, `dist` (which is torch.distributed) and those of the notebook's
variables that it uses, as copies: what it assigns stays there, and only the results come back. Functions of the notebook
see the notebook's variables, not the cell's.
"""

import ast
import linecache
import pickle
import traceback

from bigmodel_lab.dist import _arguments, _report, launch

GIVEN = ("rank", "ranks", "torch", "dist")


def load(ipython) -> None:
    """Register %%ranks in the IPython shell `ipython`."""
    from IPython.core.error import UsageError  # here, for the ranks import this module too
    from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

    @magic_arguments()
    @argument("count", metavar="RANKS", type=int, nargs="?", default=2, help="how many (2)")
    @argument("--timeout", metavar="S", type=float, default=60, help="stop after S seconds (60)")
    @argument("--threads", metavar="N", type=int, default=1, help="threads per rank (1)")
    @argument("--checks", action="store_true", help="compare the ranks' collectives as they run")
    @argument("--out", metavar="NAME", help="keep the results in this variable; do not show them")
    def ranks(line, cell):
        """Run this cell on every rank, and show or keep the list of what its last expression gives."""
        options = parse_argstring(ranks, line)
        if options.out is not None and not options.out.isidentifier():
            raise UsageError(f"--out must be the name of a variable, got {options.out!r}.")
        try:
            results = _run(cell, ipython, options)
        # All of these are said before a rank is started; where in this library would tell the reader nothing.
        except SyntaxError as e:
            text = "".join(traceback.format_exception_only(e)).strip()
            raise UsageError(_report.readable(text)) from None
        except (TypeError, ValueError) as e:
            raise UsageError(str(e)) from None
        if options.out is not None:
            ipython.user_ns[options.out] = results
        elif any(result is not None for result in results):
            return results

    ipython.register_magic_function(ranks, "cell", "ranks")


def _run(cell: str, ipython, options) -> list:
    source = "\n" + cell  # the magic's own line is line 1 of the cell
    filename = f"Cell In[{len(ipython.history_manager.input_hist_parsed) - 1}]"
    linecache.cache[filename] = len(source), None, source.splitlines(keepends=True), filename
    tree = ast.parse(source, filename)
    compile(tree, filename, "exec")  # so that what is no Python is said here, and not by every rank
    variables = _used(tree, ipython.user_ns)
    named = {f"the variable {name!r}": value for name, value in variables.items()}
    return launch.run(
        run_cell,
        source,
        filename,
        _arguments.pack(variables, named),
        ranks=options.count,
        timeout_s=options.timeout,
        threads=options.threads,
        checks=options.checks,
    )


def _used(tree: ast.Module, notebook: dict) -> dict:
    """Return the notebook's variables whose values the cell may read."""
    read, assigned = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else assigned).add(node.id)
        elif isinstance(node, ast.AugAssign):
            read.add(ast.unparse(node.target))
    used = {name: notebook[name] for name in sorted(read - set(GIVEN)) if name in notebook}
    # A name that the cell assigns may have an older value in the notebook that nobody means, such as a lock.
    unmeant = {name for name in assigned & used.keys() if not _arguments.travels(used[name])}
    return {name: value for name, value in used.items() if name not in unmeant}


def run_cell(source: str, filename: str, packed: bytes):
    """On a rank: execute the cell and return the value of its last expression, or None."""
    import torch
    import torch.distributed

    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    given = dict(zip(GIVEN, (rank, ranks, torch, torch.distributed), strict=True))
    variables = {"__name__": "__main__", **pickle.loads(packed), **given}
    tree = ast.parse(source, filename)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, filename, "exec"), variables)
    return eval(compile(ast.Expression(last.value), filename, "eval"), variables) if last else None
