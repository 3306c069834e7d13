"""Is this machine ready for the course? Each check says what it found and, if that is not well, how to mend it.

    make doctor          or: python -m bigmodel_lab.course.doctor

The exit status is 1 if a check fails; a warning costs comfort or speed only. What is printed at the end can be pasted
into a bug report: it names no user, no folder and no host.
"""

import getpass
import importlib
import locale
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil

from bigmodel_lab.files import home

OK, WARN, FAIL = "OK", "WARN", "FAIL"
GiB = 2**30
BUILD = "run make env (or python -m pip install -e . in your environment)"
THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    status: str
    said: str
    mend: str = ""


def ok(said: str) -> Finding:
    return Finding(OK, said)


def warn(said: str, mend: str) -> Finding:
    return Finding(WARN, said, mend)


def fail(said: str, mend: str) -> Finding:
    return Finding(FAIL, said, mend)


def check_python() -> Finding:
    """Python is new enough, and 64-bit."""
    said = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}, {sys.maxsize.bit_length() + 1} bits"
    if sys.version_info < (3, 11) or sys.maxsize < 2**32:
        return fail(said, "install a 64-bit Python 3.11 or later and run make clean, then make env")
    return ok(said)


def check_versions() -> Finding:
    """Every package that pyproject.toml names is there in a version that it allows."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(r) for r in metadata.requires("bigmodel-lab") or []]
    except ImportError as missing:  # PackageNotFoundError is one of them
        return fail(f"{missing.name or 'bigmodel-lab'} is not installed", BUILD)
    bad, absent = [], []
    for r in wanted:
        needed = not r.marker or r.marker.evaluate({"extra": ""})
        if not needed and not any(r.marker.evaluate({"extra": e}) for e in ("book", "test", "dev")):
            continue
        amiss = bad if needed else absent
        try:
            found = metadata.version(r.name)
        except metadata.PackageNotFoundError:
            amiss.append(f"{r.name} is missing")
            continue
        if not r.specifier.contains(found, prereleases=True):
            amiss.append(f"{r.name} is {found}, needs {r.specifier}")
    if bad:
        return fail("; ".join(bad), BUILD)
    if absent:
        return warn(f"{'; '.join(absent)} (for tests, the book or lint)", BUILD)
    return ok(f"{len(wanted)} packages as pyproject.toml asks")


def check_cores() -> Finding:
    """Two ranks have a core each."""
    cores = _cores()
    if cores < 2:
        return warn("1 core", "give a container 2: ranks that share one are right but slow")
    return ok(f"{cores} cores for this process")


def check_threads() -> Finding:
    """No setting makes more threads than cores, or stops compilation."""
    cores = _cores()
    for name in THREAD_SETTINGS:
        value = os.environ.get(name, "")
        if value and not (value.isascii() and value.isdigit() and int(value) > 0):
            return fail(f"{name} is {value!r}, not a number of threads", f"unset {name}")
        if value and int(value) > cores:
            return warn(f"{name} is {value} on {cores} cores: slower than {cores}", f"unset {name}")
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return warn("NUMBA_DISABLE_JIT: kernels run as plain Python, 100 times slower", "unset it")
    set_here = [f"{n}={os.environ[n]}" for n in THREAD_SETTINGS if n in os.environ]
    return ok(", ".join(set_here) or "no settings")


NUMBA_PROGRAM = """
import numba, numpy as np
@numba.njit(parallel=True)
def total(x):
    s = 0.0
    for i in numba.prange(x.size):
        s += x[i]
    return s
assert total(np.ones(1000)) == 1000
print(numba.threading_layer(), numba.get_num_threads())
"""


def check_numba() -> Finding:
    """Numba compiles a parallel loop, and it adds up; in a process of its own, which may crash."""
    mend = f"{BUILD}; if it stays, export NUMBA_THREADING_LAYER=workqueue"
    try:
        done = subprocess.run(
            [sys.executable, "-c", NUMBA_PROGRAM], capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired:
        return fail("compiling a loop took more than 60 s", mend)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        return fail(lines[-1], mend)
    layer, threads = done.stdout.split()
    return ok(f"compiles; threading layer {layer}, {threads} threads")


def _add_up() -> float:
    torch = importlib.import_module("torch")  # in a rank, where it is loaded already
    x = torch.ones(1)
    torch.distributed.all_reduce(x)
    return x.item()


def _warm() -> None:
    """Let the processes for check_ranks load torch while other checks run."""
    from bigmodel_lab import dist

    dist.warm()


def check_ranks() -> Finding:
    """Two processes start and add up a number over gloo."""
    from bigmodel_lab import dist

    got = dist.run(_add_up, ranks=2, timeout_s=60)
    if got != [2.0, 2.0]:
        return fail(f"1 + 1 over two ranks gave {got}", "report it, with the block below")
    return ok("two started and agreed (gloo)")


def check_disk() -> Finding:
    """Room for environments, caches and checkpoints."""
    free = shutil.disk_usage(".").free / GiB
    said = f"{free:.1f} GiB free"
    if free < 0.2:
        return fail(said, "free 2 GiB on this disk")
    if free < 2:
        return warn(said, "free 2 GiB on this disk before make env")
    return ok(said)


def check_memory() -> Finding:
    """Memory for a notebook and two ranks, within the container's limit where there is one."""
    free = psutil.virtual_memory().available
    try:
        limit, used = (
            int(Path("/sys/fs/cgroup", n).read_text()) for n in ("memory.max", "memory.current")
        )
        free = min(free, limit - used)
    except (OSError, ValueError):  # no such file, or "max"
        pass
    said = f"{free / GiB:.1f} GiB available"
    if free < 0.7 * GiB:
        return fail(said, "close other programs: a notebook with two ranks takes about 1.5 GiB")
    if free < 2 * GiB:
        return warn(
            said, "shut down other kernels before a lab (JupyterLab: Kernel, Shut Down All)"
        )
    return ok(said)


def check_shared_memory() -> Finding:
    """Processes can share memory; containers are often started with 64 MiB."""
    try:
        size = shutil.disk_usage("/dev/shm").free / 2**20
    except OSError:
        return ok("not used on this system")
    if size < 32:
        return warn(f"{size:.0f} MiB", "start the container with --shm-size=256m")
    return ok(f"{size:.0f} MiB" if size < 1024 else "1 GiB or more")


def check_kernel() -> Finding:
    """The Jupyter kernel that notebooks ask for is this Python."""
    mend = "run python -m ipykernel install --sys-prefix in this environment"
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        return fail("jupyter_client is not installed", BUILD)
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return fail("no kernel named python3 is registered", mend)
    if os.sep in command and not _beside_python(command):
        return fail("the kernel python3 belongs to another Python", mend)
    return ok("python3 is this Python")


def check_jupyter() -> Finding:
    """The command `jupyter` on the PATH is this environment's."""
    found = shutil.which("jupyter")
    if found is None:
        return warn("no command jupyter on the PATH", "start JupyterLab with make lab")
    if not _beside_python(found):
        return warn(
            "the command jupyter is another environment's", "start JupyterLab with make lab"
        )
    return ok("the command is this environment's")


def check_data() -> Finding:
    """Every data file that ships with the package is whole."""
    from bigmodel_lab import data

    bad = data.verify()
    if bad:
        return fail("; ".join(bad), "git checkout bigmodel_lab/data, or install the package again")
    return ok(f"{len(data.names())} data sets intact")


def check_port() -> Finding:
    """A program can listen on this machine and another can reach it."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname(), timeout=3) as client:
                client.sendall(b"x")
                with server.accept()[0] as far:
                    far.settimeout(3)
                    heard = far.recv(1)
    except OSError as error:
        heard = str(error.strerror or error)
    if heard != b"x":
        return fail(
            f"127.0.0.1: {heard!r}", "let a firewall or sandbox allow connections to 127.0.0.1"
        )
    return ok("127.0.0.1 answers")


def check_host_name() -> Finding:
    """This machine's name has an address. Our ranks do not need it; torchrun and others do."""
    answer = []

    def resolve():
        try:
            answer.append(socket.getaddrinfo(socket.gethostname(), None))
        except OSError:
            answer.append(None)

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(3)
    if answer and answer[0]:
        return ok("resolves")
    said = "does not resolve" if answer else "takes more than 3 s to resolve"
    return warn(
        said, 'add the line "127.0.0.1 NAME" to /etc/hosts, NAME being what hostname prints'
    )


def check_temp() -> Finding:
    """Temporary files can be written."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 2**20)
    except OSError as error:
        return fail(
            error.strerror or str(error), "set TMPDIR to a folder with room that you may write to"
        )
    return ok("writable")


def check_ledger() -> Finding:
    """The folder of the reader's predictions can be written."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home()) as file:
            file.write(b"x")
    except OSError as error:
        return fail(
            error.strerror or str(error), "set BIGMODEL_LAB_HOME to a folder you may write to"
        )
    return ok("writable")


def check_blas() -> Finding:
    """NumPy's matrix product runs on a real BLAS."""
    library = np.show_config(mode="dicts")["Build Dependencies"]["blas"].get("name", "unknown")
    speed = _gflops()
    said = f"{library}, {speed:.0f} GFLOP/s"
    if speed < 1:
        return warn(said, f"expect 10 or more: close other programs; if it stays, {BUILD}")
    return ok(said)


def check_mdbook() -> Finding:
    """`make book` finds its program."""
    beside = Path(sys.executable).parent
    found = shutil.which("mdbook", path=os.pathsep.join([str(beside), os.environ.get("PATH", "")]))
    if found is None:
        return warn("no mdbook: make book will not work", BUILD)
    done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10)
    version = done.stdout.strip().removeprefix("mdbook ")
    if not version.startswith("v0.5."):
        return warn(f"mdbook {version or 'does not start'}: the book is made for 0.5", BUILD)
    return ok(version)


def check_git() -> Finding:
    """git is there; only contributors need it."""
    if not shutil.which("git"):
        return warn("not found", "install git to contribute")
    return ok("found")


def check_locale() -> Finding:
    """Chinese text can be printed and read."""
    encodings = {
        getattr(sys.stdout, "encoding", None) or "none",
        locale.getpreferredencoding(False),
    }
    bad = [e for e in sorted(encodings) if e.lower().replace("-", "").replace("_", "") != "utf8"]
    if bad:
        return warn(
            f"text is written as {', '.join(bad)}", "export PYTHONUTF8=1 and LC_ALL=C.UTF-8"
        )
    return ok("UTF-8")


CHECKS = tuple(f for name, f in list(globals().items()) if name.startswith("check_"))


def examine(check) -> Finding:
    """Run one check; whatever goes wrong in it is a finding too."""
    try:
        return check()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return fail(f"{type(error).__name__}: {lines[0]}", f"{BUILD}; if it stays, report it")


def scrub(text: str) -> str:
    """Take the user, the host and every folder out of a text."""
    text = re.sub(
        r"(?<![\w/.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:;,'\"()]+[/\\])+[^\s/\\:;,'\"()]*", "PATH", text
    )
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = ""
    for word, stands_for in (
        (socket.gethostname(), "HOST"),
        (user, "USER"),
        (Path.home().name, "USER"),
    ):
        if len(word) > 2:
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", stands_for, text)
    return text


def main() -> int:
    """Run every check, print what was found, and return 1 if any failed."""
    start, findings = time.monotonic(), {}
    print(f"{len(CHECKS)} checks, about 10 s", flush=True)
    examine(_warm)  # what goes wrong here goes wrong in check_ranks too, which says so
    for check in CHECKS:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        found = findings[name] = examine(check)
        print(f"{found.status:5} {name:14} {found.said}", flush=True)
        if found.status != OK:
            print(f"{'mend it:':>20} {found.mend}", flush=True)
    count = {s: sum(f.status == s for f in findings.values()) for s in (OK, WARN, FAIL)}
    print(
        f"\n{count[OK]} OK, {count[WARN]} WARN, {count[FAIL]} FAIL in {time.monotonic() - start:.0f} s"
    )
    print(f"\nTo report a problem, paste this:\n\n```\n{report(findings)}\n```")
    return int(count[FAIL] > 0)


def report(findings: dict[str, Finding]) -> str:
    """Return the block for a bug report: versions, machine, findings; no user, folder or host in it."""
    from bigmodel_lab.train import machine

    about = machine.machine()
    lines = [
        ", ".join(f"{k} {v}" for k, v in machine.versions().items()),
        f"{about['cpu']}, {about['cores']} cores, {about['memory_bytes'] / GiB:.1f} GiB, {about['system']}",
        *(f"{f.status:5} {name}: {f.said}" for name, f in findings.items()),
    ]
    return scrub("\n".join(lines))


def _cores() -> int:
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def _beside_python(program: str) -> bool:
    """Whether a program lies in the folder of this Python, as seen through links to folders."""
    return os.path.realpath(os.path.dirname(program)) == os.path.realpath(
        os.path.dirname(sys.executable)
    )


def _gflops(n: int = 512) -> float:
    x, best = np.ones((n, n)), float("inf")
    for _ in range(5):
        start = time.perf_counter()
        x @ x
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9


if __name__ == "__main__":
    raise SystemExit(main())
