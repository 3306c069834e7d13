"""Each check of the doctor, well and with its world broken: what it finds, and that it says how to mend it."""

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bigmodel_lab.course import doctor
from bigmodel_lab.course.doctor import FAIL, OK, WARN, Finding

ROOT = Path(__file__).parents[2]


def is_well(check):
    found = doctor.examine(check)
    assert found.status == OK, found
    assert found.said


def finds(check, status, said, mend):
    found = doctor.examine(check)
    assert found.status == status, found
    assert said in found.said
    assert mend in found.mend


def test_there_are_at_least_twelve_checks():
    assert len(doctor.CHECKS) >= 12
    assert all(check.__doc__ for check in doctor.CHECKS)


def test_python(monkeypatch):
    is_well(doctor.check_python)
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    finds(doctor.check_python, FAIL, "3.10.1", "install a 64-bit Python 3.11")


class TestVersions:
    @pytest.fixture
    def asked(self, monkeypatch):
        def ask(*requirements):
            monkeypatch.setattr(importlib.metadata, "requires", lambda name: list(requirements))

        return ask

    def test_well(self, asked):
        is_well(doctor.check_versions)
        asked(
            "numpy>=1", "pytest>=1; extra == 'test'", "nothing-of-that-name; python_version < '3'"
        )
        is_well(doctor.check_versions)

    def test_too_old(self, asked):
        asked("numpy>=99")
        finds(doctor.check_versions, FAIL, "needs >=99", "make env")

    def test_missing(self, asked):
        asked("nothing-of-that-name>=1; python_version > '3'", "numpy")
        finds(doctor.check_versions, FAIL, "nothing-of-that-name is missing", "make env")

    def test_missing_extra_is_a_warning(self, asked):
        asked("numpy", "nothing-of-that-name>=1; extra == 'book'")
        finds(
            doctor.check_versions,
            WARN,
            "nothing-of-that-name is missing (for tests, the book",
            "make env",
        )

    def test_package_itself_missing(self, monkeypatch):
        def requires(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "requires", requires)
        finds(doctor.check_versions, FAIL, "bigmodel-lab is not installed", "pip install -e .")


def test_cores(monkeypatch):
    monkeypatch.setattr(doctor, "_cores", lambda: 2)
    is_well(doctor.check_cores)
    monkeypatch.setattr(doctor, "_cores", lambda: 1)
    finds(doctor.check_cores, WARN, "1 core", "give a container 2")


@pytest.mark.parametrize(
    ("name", "value", "status", "said"),
    [
        ("OMP_NUM_THREADS", "many", FAIL, "not a number of threads"),
        ("NUMBA_NUM_THREADS", "0", FAIL, "not a number of threads"),
        ("OPENBLAS_NUM_THREADS", "8", WARN, "8 on 2 cores"),
        ("NUMBA_DISABLE_JIT", "1", WARN, "plain Python"),
    ],
)
def test_threads(monkeypatch, name, value, status, said):
    monkeypatch.setattr(doctor, "_cores", lambda: 2)
    for setting in (*doctor.THREAD_SETTINGS, "NUMBA_DISABLE_JIT"):
        monkeypatch.delenv(setting, raising=False)
    is_well(doctor.check_threads)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    is_well(doctor.check_threads)
    monkeypatch.setenv(name, value)
    finds(doctor.check_threads, status, said, "unset")


class TestNumba:  # well: in test_the_command
    def test_no_threading_layer(self, monkeypatch):
        monkeypatch.setenv("NUMBA_THREADING_LAYER", "nonsense")
        finds(doctor.check_numba, FAIL, "nonsense", "NUMBA_THREADING_LAYER=workqueue")

    def test_crash_without_a_word(self, monkeypatch):
        monkeypatch.setattr(doctor, "NUMBA_PROGRAM", "import os; os.abort()")
        finds(doctor.check_numba, FAIL, "ended with status -6", "make env")

    def test_endless(self, monkeypatch):
        def late(*_, **options):
            raise subprocess.TimeoutExpired("python", options["timeout"])

        monkeypatch.setattr(subprocess, "run", late)
        finds(doctor.check_numba, FAIL, "more than 60 s", "make env")


class TestRanks:  # well: in test_the_command
    def test_wrong_sum(self, monkeypatch):
        from bigmodel_lab import dist

        monkeypatch.setattr(dist, "run", lambda *_, **__: [2.0, 1.0])
        finds(doctor.check_ranks, FAIL, "gave [2.0, 1.0]", "report it")

    def test_rank_that_fails(self, monkeypatch):
        from bigmodel_lab import dist

        def run(*_, **__):
            raise RuntimeError("rank 1 died\nits stack")

        monkeypatch.setattr(dist, "run", run)
        finds(doctor.check_ranks, FAIL, "RuntimeError: rank 1 died", "report it")


@pytest.mark.parametrize(("free", "status"), [(50, OK), (1, WARN), (0.1, FAIL)])
def test_disk(monkeypatch, free, status):
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=free * 2**30)
    )
    finds(doctor.check_disk, status, f"{free:.1f} GiB free", "" if status == OK else "free 2 GiB")


class TestMemory:
    @pytest.fixture
    def world(self, monkeypatch):
        def make(available, limit="max", used="0"):
            memory = SimpleNamespace(available=available * 2**30)
            monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: memory)
            group = {"memory.max": limit, "memory.current": used}
            monkeypatch.setattr(Path, "read_text", lambda self: group[self.name])

        return make

    def test_well(self, world):
        world(8)
        is_well(doctor.check_memory)

    def test_little(self, world):
        world(1.5)
        finds(doctor.check_memory, WARN, "1.5 GiB", "shut down other kernels")
        world(0.3)
        finds(doctor.check_memory, FAIL, "0.3 GiB", "close other programs")

    def test_limit_of_a_container(self, world):
        world(8, limit=str(2**31), used=str(2**30))
        finds(doctor.check_memory, WARN, "1.0 GiB", "shut down")


def test_shared_memory(monkeypatch):
    def usage(free):
        return lambda path: SimpleNamespace(free=free)

    monkeypatch.setattr(doctor.shutil, "disk_usage", usage(2**30))
    is_well(doctor.check_shared_memory)
    monkeypatch.setattr(doctor.shutil, "disk_usage", usage(2**20))
    finds(doctor.check_shared_memory, WARN, "1 MiB", "--shm-size")

    def absent(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(doctor.shutil, "disk_usage", absent)
    is_well(doctor.check_shared_memory)


class TestKernel:
    @pytest.fixture
    def registered(self, tmp_path, monkeypatch):
        from jupyter_client.kernelspec import KernelSpecManager

        def write(*argv):
            folder = tmp_path / "python3"
            folder.mkdir(exist_ok=True)
            (folder / "kernel.json").write_text(
                json.dumps({"argv": argv, "display_name": "x", "language": "x"})
            )
            monkeypatch.setattr(
                KernelSpecManager, "_kernel_dirs_default", lambda self: [str(tmp_path)]
            )

        return write

    def test_well(self, registered):
        registered(sys.executable, "-m", "ipykernel_launcher")
        is_well(doctor.check_kernel)
        registered(
            "python", "-m", "ipykernel_launcher"
        )  # jupyter_client puts this Python in its place
        is_well(doctor.check_kernel)

    def test_other_python(self, registered, tmp_path):
        registered(str(tmp_path / "python"), "-m", "ipykernel_launcher")
        finds(doctor.check_kernel, FAIL, "another Python", "ipykernel install")

    def test_none(self, monkeypatch):
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

        def get_kernel_spec(self, name):
            raise NoSuchKernel(name)

        monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", get_kernel_spec)
        finds(doctor.check_kernel, FAIL, "no kernel named python3", "ipykernel install")

    def test_jupyter_client_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "jupyter_client.kernelspec", None)
        finds(doctor.check_kernel, FAIL, "jupyter_client is not installed", "make env")


def program(folder, name, text=""):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def test_jupyter(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    finds(doctor.check_jupyter, WARN, "no command jupyter", "make lab")
    program(tmp_path, "jupyter")
    finds(doctor.check_jupyter, WARN, "another environment's", "make lab")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    is_well(doctor.check_jupyter)


def test_data(monkeypatch):
    from bigmodel_lab import data

    is_well(doctor.check_data)
    monkeypatch.setattr(data, "verify", lambda: ["digits: the file is damaged"])
    finds(doctor.check_data, FAIL, "digits: the file is damaged", "git checkout")


class TestPort:
    def test_well(self):
        is_well(doctor.check_port)

    def test_refused(self, monkeypatch):
        def refuse(*_, **__):
            raise ConnectionRefusedError(111, "Connection refused")

        monkeypatch.setattr(socket, "create_connection", refuse)
        finds(doctor.check_port, FAIL, "Connection refused", "allow connections to 127.0.0.1")

    def test_no_permission_to_listen(self, monkeypatch):
        def refuse(*_, **__):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(socket, "create_server", refuse)
        finds(doctor.check_port, FAIL, "Operation not permitted", "allow connections")


def test_host_name(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [("address",)])
    is_well(doctor.check_host_name)

    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    finds(doctor.check_host_name, WARN, "does not resolve", "/etc/hosts")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: time.sleep(3.5))
    finds(doctor.check_host_name, WARN, "more than 3 s", "/etc/hosts")


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_temp(monkeypatch):
    is_well(doctor.check_temp)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    finds(doctor.check_temp, FAIL, "No space left", "TMPDIR")


def test_ledger(monkeypatch, tmp_path):
    monkeypatch.setenv("BIGMODEL_LAB_HOME", str(tmp_path / "home"))
    is_well(doctor.check_ledger)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIGMODEL_LAB_HOME", str(tmp_path / "file"))
    finds(doctor.check_ledger, FAIL, "File exists", "BIGMODEL_LAB_HOME")


def test_blas(monkeypatch):
    assert doctor._gflops(64) > 0
    monkeypatch.setattr(doctor, "_gflops", lambda: 20.0)
    is_well(doctor.check_blas)
    monkeypatch.setattr(doctor, "_gflops", lambda: 0.4)
    finds(doctor.check_blas, WARN, "0 GFLOP/s", "close other programs")


def test_mdbook(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", os.defpath)
    finds(doctor.check_mdbook, WARN, "no mdbook", "make env")
    program(tmp_path, "mdbook", "echo mdbook v0.5.4")
    is_well(doctor.check_mdbook)
    program(tmp_path, "mdbook", "echo mdbook v0.4.40")
    finds(doctor.check_mdbook, WARN, "v0.4.40", "make env")
    program(tmp_path, "mdbook", "exit 1")
    finds(doctor.check_mdbook, WARN, "does not start", "make env")


def test_git(monkeypatch, tmp_path):
    program(tmp_path, "git")
    monkeypatch.setenv("PATH", str(tmp_path))
    is_well(doctor.check_git)
    monkeypatch.setenv("PATH", "")
    finds(doctor.check_git, WARN, "not found", "install git")


def test_locale(monkeypatch):
    monkeypatch.setattr(doctor.sys, "stdout", SimpleNamespace(encoding="utf-8"))
    monkeypatch.setattr(doctor.locale, "getpreferredencoding", lambda _: "UTF-8")
    is_well(doctor.check_locale)
    monkeypatch.setattr(doctor.locale, "getpreferredencoding", lambda _: "ANSI_X3.4-1968")
    finds(doctor.check_locale, WARN, "ANSI_X3.4-1968", "PYTHONUTF8=1")


def test_check_that_breaks_is_a_finding():
    def breaks():
        raise KeyError("x")

    finds(breaks, FAIL, "KeyError: 'x'", "report it")


class TestMain:
    @pytest.fixture
    def checks(self, monkeypatch):
        def have(*findings):
            made = []
            for n, found in enumerate(findings):
                check = lambda found=found: found  # noqa: E731
                check.__name__ = f"check_number_{n}"
                made.append(check)
            monkeypatch.setattr(doctor, "CHECKS", tuple(made))

        return have

    def test_failure_is_shown_with_its_mend_and_in_the_status(self, checks, capsys):
        checks(
            Finding(OK, "fine"), Finding(WARN, "slow", "wait"), Finding(FAIL, "gone", "fetch it")
        )
        assert doctor.main() == 1
        out = capsys.readouterr().out
        assert out.splitlines()[1:6] == [
            "OK    number 0       fine",
            "WARN  number 1       slow",
            "            mend it: wait",
            "FAIL  number 2       gone",
            "            mend it: fetch it",
        ]
        assert "1 OK, 1 WARN, 1 FAIL in 0 s" in out

    def test_warnings_are_no_failure(self, checks, capsys):
        checks(Finding(OK, "fine"), Finding(WARN, "slow", "wait"))
        assert doctor.main() == 0
        assert "FAIL  " not in capsys.readouterr().out

    def test_block_names_no_user_host_or_folder(self, checks, monkeypatch, capsys):
        monkeypatch.setattr(socket, "gethostname", lambda: "mimosa")
        monkeypatch.setattr(doctor.getpass, "getuser", lambda: "wanda")
        monkeypatch.setattr(Path, "home", lambda: Path("/home/wanda.w"))
        said = "no /home/wanda.w/x.npz for wanda on mimosa, C:\\Users\\wanda\\x, (/opt/a/b), at 3 GFLOP/s"
        checks(Finding(FAIL, said, "see /home/wanda.w/notes"))
        doctor.main()
        block = capsys.readouterr().out.split("```")[1]
        assert "number 0: no PATH for USER on HOST, PATH, (PATH), at 3 GFLOP/s" in block
        assert not {"wanda", "mimosa"} & set(block.replace("/", " ").split())
        assert f"python {sys.version_info[0]}.{sys.version_info[1]}" in block


def test_the_command(tmp_path):
    """The whole thing as a reader runs it: every check reports, none breaks, in well under 20 s on an idle machine."""
    environment = os.environ | {"BIGMODEL_LAB_HOME": str(tmp_path)}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "bigmodel_lab.course.doctor"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=120,
        check=False,
    )
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nOK    numba " in done.stdout
    assert "\nOK    ranks " in done.stdout
    assert not done.stderr
    assert seconds < 60
