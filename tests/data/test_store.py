"""Bytes that depend on the content only, and writing that leaves all or nothing."""

import builtins
import errno
import time

import numpy as np
import pytest

from bigmodel_lab.data import DataError, store

ARRAYS = {"x": np.arange(600, dtype=np.uint8).reshape(2, 300) % 7, "y": np.array([3, 1])}
CONTENTS = {"a.npz": ARRAYS, "b.txt.gz": "床前明月光\nCall me Ishmael.\n"}


@pytest.mark.parametrize("file", CONTENTS)
def test_decode_inverts_encode(file):
    back = store.decode(file, store.encode(CONTENTS[file]))
    np.testing.assert_equal(back, CONTENTS[file])
    assert store.content_sha256(back) == store.content_sha256(CONTENTS[file])


@pytest.mark.parametrize("file", CONTENTS)
def test_the_bytes_do_not_depend_on_the_time(file, monkeypatch):
    first = store.encode(CONTENTS[file])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e8)
    assert store.encode(CONTENTS[file]) == first


def test_nor_on_the_order_of_the_names_or_the_layout_in_memory():
    other = {"y": ARRAYS["y"], "x": np.asfortranarray(ARRAYS["x"])}
    assert store.encode(other) == store.encode(ARRAYS)
    assert store.content_sha256(other) == store.content_sha256(ARRAYS)


@pytest.mark.parametrize(
    "other",
    [
        {**ARRAYS, "y": np.array([3, 2])},
        {**ARRAYS, "y": ARRAYS["y"].astype(np.int32)},
        {**ARRAYS, "x": ARRAYS["x"].reshape(300, 2)},
        {"x": ARRAYS["x"], "z": ARRAYS["y"]},
    ],
    ids=["value", "dtype", "shape", "name"],
)
def test_the_content_hash_sees_a_change_of(other):
    assert store.content_sha256(other) != store.content_sha256(ARRAYS)


def test_write_together_writes_all_and_leaves_nothing_else(tmp_path):
    store.write_together(tmp_path / "new", {"a": b"1", "b": b"22"})
    assert {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()} == {"a": b"1", "b": b"22"}


class FullDisk:
    """A file on a disk that fills up: the first `room` bytes are written, then the write fails."""

    def __init__(self, file, room, number):
        self.file, self.room, self.number = file, room, number

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.file.write(data[: self.room])
        if len(data) > self.room:
            self.file.flush()
            raise OSError(self.number, "as the disk said")


@pytest.fixture
def full_disk(monkeypatch):
    def fill(room, number=errno.ENOSPC):
        def fake(path, mode):
            return FullDisk(builtins.open(path, mode), room, number)

        monkeypatch.setattr(store, "open", fake, raising=False)

    return fill


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_files_and_says_how_much_is_needed(tmp_path, full_disk, number):
    (tmp_path / "a").write_bytes(b"old")
    full_disk(room=1000, number=number)
    with pytest.raises(
        DataError, match=r"No space left in .*: this needs 2\.0 MB and .* MB are free"
    ):
        store.write_together(tmp_path, {"a": b"new", "b": bytes(2_000_000)})
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_other_errors_come_through_as_they_are(tmp_path, full_disk):
    full_disk(room=0, number=errno.EIO)
    with pytest.raises(OSError, match="as the disk said") as e:
        store.write_together(tmp_path, {"a": b"new"})
    assert e.value.errno == errno.EIO
    assert list(tmp_path.iterdir()) == []


def test_require_room(tmp_path):
    store.require_room(tmp_path, 1)
    with pytest.raises(DataError, match=r"this needs 1,000,000,000,000\.0 MB"):
        store.require_room(tmp_path, 10**18)
