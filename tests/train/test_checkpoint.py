"""Checkpoints: what is in them, which are kept, damage anywhere, a full disk, an interrupt, messages."""

import errno
import io
import json
import os
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_lab.train import (
    CheckpointWarning,
    checkpoint_files,
    load_checkpoint,
    save_checkpoint,
)

FILES = ["manifest.json", "model.safetensors", "state.json", "state.safetensors"]


def save(folder, step, **options):
    w = torch.full((5, 3), float(step))
    model = {"w": w, "tied": w, "b": torch.arange(3.0)}
    state = {
        "optimizer": {0: {"m": torch.full((5,), float(step))}},
        "lr": 0.5,
        "betas": (0.9, 0.95),
    }
    return save_checkpoint(folder, step, model, state, **options)


def right(found, step):
    """Whether `found` is all of what `save` wrote at `step`."""
    return (
        found.step == step
        and found.model["w"].tolist() == found.model["tied"].tolist() == [[step] * 3] * 5
        and found.state["optimizer"][0]["m"].tolist() == [step] * 5
        and found.state["betas"] == (0.9, 0.95)
    )


def listing(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def loads(folder, step, *said):
    """Assert that the folder gives `step` and a warning that says each of `said`."""
    with pytest.warns(CheckpointWarning) as caught:
        assert right(load_checkpoint(folder), step)
    (warning,) = caught
    assert warning.filename == __file__  # it points at the caller
    for text in said:
        assert text in str(warning.message)


def test_what_is_saved_is_what_is_loaded_and_nothing_else_lies_about(tmp_path):
    path = save(tmp_path / "new" / "run", 7)
    assert path.name == "step-00000007"
    assert listing(path) == FILES
    assert listing(path.parent) == ["latest", "step-00000007"]
    assert right(load_checkpoint(path.parent), 7)
    weights = safetensors.torch.load_file(path / "model.safetensors")
    assert set(weights) == {"w", "b"}  # tied once
    assert weights["w"].tolist() == [[7.0] * 3] * 5
    assert json.loads((path / "state.json").read_text())["state"]["lr"] == 0.5


def test_the_last_ones_are_kept_and_the_best(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step, keep=2, best=step == 2)
    assert listing(tmp_path) == ["best", "latest", *(f"step-0000000{i}" for i in (2, 4, 5))]
    assert right(load_checkpoint(tmp_path), 5)
    assert right(load_checkpoint(tmp_path, "best"), 2)
    save(tmp_path, 6, keep=1, best=True)
    assert listing(tmp_path) == ["best", "latest", "step-00000006"]


def test_a_second_one_of_a_step_is_made_beside_the_first(tmp_path):
    assert [save(tmp_path, 3, keep=2).name for _ in range(3)] == [
        "step-00000003", "step-00000003.1", "step-00000003.2",
    ]  # fmt: skip
    assert listing(tmp_path) == ["latest", "step-00000003.1", "step-00000003.2"]
    assert right(load_checkpoint(tmp_path), 3)


def test_after_going_back_what_the_run_has_left_behind_goes_first(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step, keep=3)
    (tmp_path / "latest").write_text("step-00000010\n")
    loads(
        tmp_path, 10, "step-00000030: newer, but `latest` does not name it", "step-00000020: newer"
    )
    save(tmp_path, 15, keep=2)
    assert listing(tmp_path) == ["latest", "step-00000010", "step-00000015"]
    assert right(load_checkpoint(tmp_path), 15)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with a checkpoint of step 1 and one of step 2."""
    folder = tmp_path_factory.mktemp("two")
    save(folder, 1)
    save(folder, 2)
    return folder


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_gives_the_one_before(two, file, where):
    with scratch_copy(two) as folder:
        path = folder / "step-00000002" / file
        path.write_bytes(path.read_bytes()[: int(where * path.stat().st_size)])
        loads(folder, 1, f"Loaded step-00000001 and skipped others. step-00000002: {file} ")


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_changed_byte_anywhere_gives_the_one_before_or_changes_nothing(two, file, where, change):
    """In the manifest the change may leave the meaning as it is, such as a space for a line's end."""
    with scratch_copy(two) as folder:
        path = folder / "step-00000002" / file
        data = bytearray(path.read_bytes())
        data[int(where * len(data))] ^= change
        path.write_bytes(data)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = load_checkpoint(folder)
        assert right(found, 1 if caught else 2)
        assert caught or file == "manifest.json"


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_gives_the_one_before(two, file):
    with scratch_copy(two) as folder:
        (folder / "step-00000002" / file).unlink()
        loads(folder, 1, f"step-00000002: {file} is missing.")


def test_a_pointer_cut_anywhere_gives_the_newest(two):
    for pointer in [b"step-00000002\n"[:n] for n in range(14)] + [
        b"\xff\n",
        b"step-00000009\n",
        b"../x\n",
    ]:
        with scratch_copy(two) as folder:
            (folder / "latest").write_bytes(pointer)
            loads(
                folder,
                2,
                "Loaded step-00000002",
                "latest: holds no name of a checkpoint that is here",
            )
    with scratch_copy(two) as folder:
        (folder / "latest").unlink()
        loads(folder, 2, "latest: missing")


def test_a_pointer_cut_to_the_name_of_another_is_noticed(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 1)
    (tmp_path / "latest").write_text("step-00000001")  # from step-00000001.1
    with pytest.warns(CheckpointWarning, match="latest: holds no name"):
        assert load_checkpoint(tmp_path).path.name == "step-00000001.1"


def test_what_was_never_finished_is_named_and_cleared_away(two):
    dead = subprocess.Popen(["true"])
    dead.wait()
    with scratch_copy(two) as folder:
        mine = f".step-00000003.{os.getpid()}.part"
        theirs, gone = f".step-00000003.{os.getppid()}.part", f".step-00000003.{dead.pid}.part"
        for name in (mine, theirs, gone):
            (folder / name).mkdir()
            (folder / name / "model.safetensors").write_bytes(b"some")
        (folder / f".latest.{dead.pid}.part").write_bytes(b"st")
        loads(
            folder,
            2,
            f"{gone}: its writing, or its deletion, never finished",
            f".latest.{dead.pid}.part",
        )
        save(folder, 3)
        assert listing(folder) == [theirs, "latest", "step-00000002", "step-00000003"]


def test_nothing_that_can_be_read(two):
    with pytest.raises(
        FileNotFoundError, match="none holds no checkpoint that could be the latest"
    ):
        load_checkpoint(two / "none")
    with pytest.raises(FileNotFoundError, match="could be the best"):
        load_checkpoint(two, "best")
    with pytest.raises(ValueError, match="which must be one of 'best', 'latest', got 'last'"):
        load_checkpoint(two, "last")
    with scratch_copy(two) as folder:
        for step in (1, 2):
            (folder / f"step-0000000{step}" / "state.json").write_bytes(b"")
        with pytest.raises(
            ValueError,
            match=r"(?s)No checkpoint in .*02: state\.json has 0 bytes of .*01: state\.json has",
        ):
            load_checkpoint(folder)


def test_a_damaged_best_one_is_not_replaced_by_another(tmp_path):
    save(tmp_path, 1, best=True)
    save(tmp_path, 2)
    (tmp_path / "step-00000001" / "state.json").unlink()
    with pytest.raises(ValueError, match=r"step-00000001: state\.json is missing"):
        load_checkpoint(tmp_path, "best")


def test_a_newer_format_says_so(two):
    with scratch_copy(two) as folder:
        path = folder / "step-00000002" / "manifest.json"
        path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
        loads(folder, 1, "step-00000002: it is 'bigmodel-lab checkpoint' of schema 2, not")


class FullDisk(io.FileIO):
    """A file on a disk that has room for `room` more bytes."""

    room = 0

    def write(self, data):
        taken = min(len(data), FullDisk.room)
        FullDisk.room -= taken
        super().write(bytes(data)[:taken])
        if taken < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return taken


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    save(tmp_path, 1)
    before = content(tmp_path)
    need = sum(len(c) for name, c in before.items() if "/" in name)
    plain_open = Path.open
    for room in [*range(0, need, 97), need, need + 13, need + 14]:  # 14 bytes of pointer
        FullDisk.room = room
        with monkeypatch.context() as patch:
            patch.setattr(
                Path,
                "open",
                lambda p, mode="r", *a, **k: (
                    FullDisk(p, "w") if mode == "wb" else plain_open(p, mode, *a, **k)
                ),
            )
            if room == need + 14:
                save(tmp_path, 2)
                break
            message = rf"step 2 was not written \(No space left on device\): it needs {need:,} bytes and [\d,]+ are free"
            with pytest.raises(OSError, match=message) as caught:
                save(tmp_path, 2)
        assert caught.value.errno == errno.ENOSPC
        after = content(tmp_path)
        assert {name: c for name, c in after.items() if name in before} == before
        assert not list(tmp_path.glob(".*"))
        shutil.rmtree(
            tmp_path / "step-00000002", ignore_errors=True
        )  # whole, if only the pointer had no room
    assert right(load_checkpoint(tmp_path), 2)


def test_two_runs_in_one_folder_are_told_so_and_not_that_the_disk_is_full(tmp_path, monkeypatch):
    save(tmp_path, 1)
    before = content(tmp_path)
    # the name was free when this run looked, and the other run's checkpoint appeared before its own did
    monkeypatch.setattr(checkpoint_files, "free_name", lambda folder, step: "step-00000001")
    with pytest.raises(OSError, match="another run writes to this folder at the same time"):
        save(tmp_path, 1)
    assert content(tmp_path) == before


def test_a_disk_that_is_really_full(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting a small file system needs rights that this user lacks")
    try:
        big = {"w": torch.zeros(30_000)}  # 120 kB: two fit, three do not
        for step in (1, 2):
            save_checkpoint(tmp_path, step, big, {})
        before = content(tmp_path)
        with pytest.raises(OSError, match=r"No space left on device\): it needs 120,"):
            save_checkpoint(tmp_path, 3, big, {})
        assert content(tmp_path) == before
        assert load_checkpoint(tmp_path).step == 2
        save_checkpoint(tmp_path, 3, {"w": torch.zeros(10)}, {}, keep=1)  # there is room for this
        assert listing(tmp_path) == ["latest", "step-00000003"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("call", range(8))
def test_an_interrupt_at_any_moment_leaves_no_half_file(tmp_path, monkeypatch, call):
    """Between files, before the rename, before and after the pointer: the same, or complete and new."""
    save(tmp_path, 1)
    calls = iter(range(100))

    def fsync(f, sync=os.fsync):
        if next(calls) == call:
            raise KeyboardInterrupt
        sync(f)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    assert not list(tmp_path.glob(".*"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert right(load_checkpoint(tmp_path), 1 if call < 7 else 2)
    save(tmp_path, 2)
    assert right(load_checkpoint(tmp_path), 2)


def test_a_state_that_cannot_be_written_touches_nothing(tmp_path):
    with pytest.raises(TypeError, match="f is a function, which a checkpoint cannot hold"):
        save_checkpoint(tmp_path / "run", 1, {}, {"f": lambda: 0})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("options", "message"), [
    ({"step": -1}, "step must be at least 0, got -1"), ({"step": 1, "keep": 0}, "keep must be at least 1, got 0"),
])  # fmt: skip
def test_messages(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        save_checkpoint(tmp_path, model={}, state={}, **options)


class scratch_copy:
    """A context with a copy of a folder."""

    def __init__(self, folder):
        self.source = folder

    def __enter__(self):
        self.folder = self.source.with_name("copy")
        shutil.rmtree(self.folder, ignore_errors=True)
        return Path(shutil.copytree(self.source, self.folder))

    def __exit__(self, *error):
        shutil.rmtree(self.folder)
