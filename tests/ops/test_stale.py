"""A kernel compiled with a helper that has changed since is forgotten; one whose helpers are the same is kept."""

import subprocess
import sys

from bigmodel_lab.ops._stale import STAMP, forget_stale_kernels

HELPER = "from numba import njit\n\n@njit(inline='always')\ndef factor():\n    return {}\n"
KERNEL = "from numba import njit\nfrom room._helper import factor\n\n@njit(cache=True)\ndef scaled(x):\n    return factor() * x\n"
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from bigmodel_lab.ops._stale import forget_stale_kernels
print(forget_stale_kernels(Path({folder!r}) / "room"))
from room.kernel import scaled
print(scaled(10))
"""


def test_a_kernel_follows_its_helper(tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "kernel.py").write_text(KERNEL)

    def scaled(factor):
        (room / "_helper.py").write_text(HELPER.format(factor))
        command = [sys.executable, "-c", PROGRAM.format(folder=str(tmp_path))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert scaled(2) == ["False", "20"]
    assert list((room / "__pycache__").glob("*.nbi"))
    assert scaled(2) == ["False", "20"]
    assert scaled(3) == ["True", "30"]


def test_the_stamp_is_written_once(tmp_path):
    (tmp_path / "_helper.py").write_text("a = 1")
    kernel = tmp_path / "__pycache__" / "k.nbi"
    assert forget_stale_kernels(tmp_path) is False
    kernel.write_bytes(b"")
    assert forget_stale_kernels(tmp_path) is False
    (tmp_path / "public.py").write_text("numba sees this one itself")
    assert forget_stale_kernels(tmp_path) is False
    (tmp_path / "_helper.py").write_text("a = 2")
    assert forget_stale_kernels(tmp_path) is True
    assert not kernel.exists()
    assert (tmp_path / "__pycache__" / STAMP).exists()
