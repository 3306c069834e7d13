"""%%ranks and dist.run in a real kernel: cells, errors as the reader sees them, interrupts, and the kernel's death."""

import os
import re
import signal
import sys
import time

import psutil
import pytest
from jupyter_client.manager import start_new_kernel


class Kernel:
    """A Jupyter kernel that runs cells and keeps what they show."""

    def __init__(self, folder):
        environment = {**os.environ, "IPYTHONDIR": str(folder)}
        self.manager, self.client = start_new_kernel(
            kernel_name="python3", startup_timeout=120, env=environment, cwd=str(folder)
        )

    def start(self, cell: str) -> str:
        return self.client.execute(cell)

    def outputs(self, request: str, until=lambda seen: False) -> dict:
        """Collect what the cell shows until it is done or `until(seen)`."""
        seen = {"stdout": "", "stderr": "", "result": None, "error": None}
        while not until(seen):
            message = self.client.get_iopub_msg(timeout=120)
            kind, content = message["header"]["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != request:
                continue
            if kind == "stream":
                seen[content["name"]] += content["text"]
            elif kind == "execute_result":
                seen["result"] = content["data"]["text/plain"]
            elif kind == "error":
                text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(content["traceback"]))
                seen["error"] = content["ename"], content["evalue"], text
            elif kind == "status" and content["execution_state"] == "idle":
                break
        return seen

    def run(self, cell: str) -> dict:
        return self.outputs(self.start(cell))

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    kernel = Kernel(tmp_path_factory.mktemp("kernel"))
    assert kernel.run("from bigmodel_lab import dist\n%load_ext bigmodel_lab.dist")["error"] is None
    yield kernel
    kernel.close()


def test_functions_and_globals_of_cells_travel(kernel):
    kernel.run("scale = 3\ndef helper(x):\n    return x * scale")
    kernel.run(
        "def work(x):\n"
        "    import torch\n"
        "    total = torch.tensor([helper(x)])\n"
        "    torch.distributed.all_reduce(total)\n"
        "    print('rank', torch.distributed.get_rank())\n"
        "    return total"
    )
    seen = kernel.run("dist.run(work, 2, ranks=3)")
    assert seen["error"] is None
    assert seen["stdout"] == "rank 0\n[rank 1] rank 1\n[rank 2] rank 2\n"
    assert seen["result"] == "[tensor([18]), tensor([18]), tensor([18])]"


def test_a_cell_runs_on_every_rank_with_the_notebooks_variables(kernel):
    kernel.run(
        "import math as m, threading\nn = 4\nlog = threading.Lock()\ndef half(x):\n    return x / 2\nunused = threading.Lock()"
    )
    seen = kernel.run(
        "%%ranks 2 --timeout 50 --threads 1\n"
        "log = n\n"  # in the notebook a lock, which the cell does not mean and no rank could get
        "n += rank\n"
        "class Sum:\n"
        "    def of(self, x):\n"
        "        dist.all_reduce(x)\n"
        "        return [x.item() for _ in range(ranks)]\n"
        "print(log, n)\n"
        "Sum().of(torch.tensor([half(n) + m.floor(0.5)]))"
    )
    assert seen["error"] is None
    assert seen["stdout"] == "4 4\n[rank 1] 4 5\n"
    assert seen["result"] == "[[4.5, 4.5], [4.5, 4.5]]"
    assert kernel.run("n, dist.__name__")["result"] == "(4, 'bigmodel_lab.dist')", (
        "the cell works on copies"
    )


def test_results_are_bound_or_shown_or_nothing(kernel):
    seen = kernel.run("%%ranks 2 --out found\nrank * 10")
    assert (seen["result"], seen["error"]) == (None, None)
    assert kernel.run("found")["result"] == "[0, 10]"
    assert kernel.run("%%ranks\nranks")["result"] == "[2, 2]", "two ranks unless told otherwise"
    assert kernel.run("%%ranks 2\nx = rank")["result"] is None
    assert kernel.run("%%ranks 2 --out found\nraise ValueError")["error"][0] == "RankError"
    assert kernel.run("found")["result"] == "[0, 10]", "an error binds nothing"


def test_the_notebook_does_not_import_torch(kernel):
    kernel.run("import sys")
    assert kernel.run("%%ranks 1 --out _\n1")["error"] is None
    other = kernel.run(
        "import subprocess\nsubprocess.run([sys.executable, '-c', 'import bigmodel_lab.dist.magic, sys; print(\"torch\" in sys.modules)'], capture_output=True).stdout"
    )
    assert other["result"] == "b'False\\n'"


def alive(process: psutil.Process) -> bool:
    try:
        # A zombie has ended, and waits for somebody to ask for its exit code.
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def number(kernel) -> int:
    """Return the execution count that the next cell will have."""
    request = kernel.start("")
    kernel.outputs(request)
    return int(kernel.run("len(In)")["result"])


def test_an_error_in_the_cell_shows_its_line(kernel):
    count = number(kernel)
    seen = kernel.run("%%ranks 2\nprint('so far')\ny = missing_name + 1")
    assert seen["stdout"] == "so far\n[rank 1] so far\n"
    name, value, text = seen["error"]
    assert (name, value) == (
        "RankError",
        "ranks 0 and 1 failed alike: NameError: name 'missing_name' is not defined",
    )
    assert text == (
        f"RankError: {value}\n"
        "On rank 0:\n"
        "Traceback (most recent call last):\n"
        f"  Cell In[{count}], line 3\n"
        "    y = missing_name + 1\n"
        "        ^^^^^^^^^^^^\n"
        "NameError: name 'missing_name' is not defined"
    )


def test_an_error_in_a_function_of_an_earlier_cell_shows_that_cells_line(kernel):
    count = number(kernel)
    kernel.run(
        "def step():\n    import torch.distributed as d\n    if d.get_rank() == 1:\n        raise ValueError('no')\n    d.barrier()"
    )
    for call in ("dist.run(step)", "%%ranks 2\nstep()"):
        name, value, text = kernel.run(call)["error"]
        assert (name, value) == ("RankError", "rank 1 failed first: ValueError: no")
        assert (
            f"  Cell In[{count}], line 4, in step\n    raise ValueError('no')\nValueError: no\n"
            in text
        )
        assert "bigmodel_lab/dist" not in text
        assert "/tmp" not in text


def test_a_hang_shows_the_cells_lines(kernel):
    count = number(kernel)
    seen = kernel.run(
        "%%ranks 2 --timeout 2\nimport time\nif rank == 0:\n    time.sleep(60)\ndist.barrier()"
    )
    assert seen["error"] == (
        "RankTimeout",
        "ranks 0 and 1 still ran after 2 s",
        "RankTimeout: ranks 0 and 1 still ran after 2 s\n"
        f"Rank 0 was here:\n  Cell In[{count}], line 4\n    time.sleep(60)\n"
        f"Rank 1 was in barrier, called here:\n  Cell In[{count}], line 5\n    dist.barrier()",
    )


def test_a_syntax_error_shows_its_line(kernel):
    count = number(kernel)
    seen = kernel.run("%%ranks 2\nx = 1\ny = = 2")
    assert (
        seen["stderr"]
        == f"UsageError: Cell In[{count}], line 3\n    y = = 2\n        ^\nSyntaxError: invalid syntax\n"
    )
    seen = kernel.run("%%ranks 2\nreturn 3")
    assert f"Cell In[{count + 1}], line 2\n" in seen["stderr"]
    assert "'return' outside function" in seen["stderr"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%ranks 0\n1", "ranks must be between 1 and 64, got 0"),
        ("%%ranks two\n1", "invalid int value: 'two'"),
        ("%%ranks 2 --timeout 0\n1", "timeout_s must be a positive number of seconds, got 0.0"),
        ("%%ranks 2 --tiemout 3\n1", "unrecognized arguments: --tiemout"),
        ("%%ranks 2 --out 3x\n1", "--out must be the name of a variable, got '3x'"),
        (
            "%%ranks 2\nwith guard:\n    pass",
            "the variable 'guard', of type lock, cannot be sent to the ranks",
        ),
        (
            "%%ranks 2\nholder['a']",
            "the variable 'holder'['a'], of type lock, cannot be sent to the ranks",
        ),
    ],
)
def test_misuse_is_one_line(kernel, cell, message):
    kernel.run("import threading\nguard = threading.Lock()\nholder = {'a': guard}")
    seen = kernel.run(cell)
    assert seen["stderr"].startswith("UsageError: ")
    assert seen["stderr"].count("\n") == 1
    assert message in seen["stderr"]


def test_checks_are_an_option(kernel):
    seen = kernel.run("%%ranks 2 --checks\ndist.all_reduce(torch.ones(3 + rank))")
    assert (
        "rank 0 called allreduce of shape [3], float, but rank 1 called allreduce of shape [4]"
        in seen["error"][2]
    )


def test_an_interrupt_ends_the_cell_and_the_next_one_works(kernel):
    for cell in (
        "%%ranks 2\nimport os, time\nprint(os.getpid(), flush=True)\nif rank:\n    time.sleep(100)\ndist.barrier()",
        "def hold():\n    import os, time\n    print(os.getpid(), flush=True)\n    time.sleep(100)\ndist.run(hold)",
    ):
        request = kernel.start(cell)
        pid = int(kernel.outputs(request, until=lambda seen: "\n" in seen["stdout"])["stdout"])
        kernel.manager.interrupt_kernel()  # to the kernel's whole process group, as from JupyterLab
        assert kernel.outputs(request)["error"][0] == "KeyboardInterrupt"
        assert not psutil.pid_exists(pid)
        assert kernel.run("%%ranks 2\nrank")["result"] == "[0, 1]"


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("how", ["SIGKILL", "shutdown"])
def test_nothing_outlives_the_kernel(tmp_path, how):
    kernel = Kernel(tmp_path)
    try:
        kernel.run("%load_ext bigmodel_lab.dist")
        request = kernel.start(
            "%%ranks 2\nprint('here', flush=True)\nif rank == 0:\n    import time\n    time.sleep(100)\ndist.barrier()"
        )
        kernel.outputs(request, until=lambda seen: "here" in seen["stdout"])
        pid = kernel.manager.provisioner.pid
        family = psutil.Process(pid).children(recursive=True)
        assert len(family) >= 3, "two ranks and the fork server"
        if how == "SIGKILL":
            os.kill(pid, signal.SIGKILL)
        else:
            kernel.manager.shutdown_kernel(now=True)
        end = time.monotonic() + 5
        while (left := [p for p in family if alive(p)]) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left
    finally:
        kernel.close()
