"""Where the course keeps its files, and that a file is there whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bigmodel_lab.files import home, require_writable, write_atomically


def test_home(monkeypatch):
    monkeypatch.setenv("BIGMODEL_LAB_HOME", "~/there")
    assert home() == Path.home() / "there"
    monkeypatch.setenv("BIGMODEL_LAB_HOME", "")
    assert home() == Path.home() / ".bigmodel-lab"
    monkeypatch.delenv("BIGMODEL_LAB_HOME")
    assert home() == Path.home() / ".bigmodel-lab"


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "file", b"old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = write_atomically(tmp_path / "file", b"old")
    code = (
        "import os, sys; from bigmodel_lab.files import write_atomically; "
        "os.replace = lambda *_: os.kill(os.getpid(), 9); write_atomically(sys.argv[1], b'new')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert path.read_bytes() == b"old"


def test_require_writable(tmp_path):
    require_writable("x", tmp_path / "new.json")
    require_writable("x", tmp_path / "a" / "b", folder=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "b"]  # only what was asked for
    (tmp_path / "file").touch()
    for path, folder, why in (
        (tmp_path / "none" / "new.json", False, "its folder does not exist"),
        (tmp_path / "a", False, "it is a folder"),
        (tmp_path / "file", True, r"it cannot be written \(File exists\)"),
        (tmp_path / "file" / "b", True, r"it cannot be written \(Not a directory\)"),
    ):
        with pytest.raises(ValueError, match=f"^x .*: {why}. Mend that, or choose another place"):
            require_writable("x", path, folder=folder)
