"""Nested state as JSON and tensors: round trips, tied and cut tensors, what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_lab.train.tree import pack, unpack


def round_trip(tree):
    packed, tensors = pack(tree)
    return unpack(json.loads(json.dumps(packed, allow_nan=False)), tensors)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.text(max_size=3) | st.integers() | st.just("$") | st.booleans() | st.none()
trees = st.recursive(
    leaves,
    lambda t: (
        st.lists(t, max_size=3)
        | st.lists(t, max_size=3).map(tuple)
        | st.dictionaries(keys, t, max_size=3)
    ),
    max_leaves=12,
)


@given(trees)
def test_any_data_come_back(tree):
    assert repr(round_trip(tree)) == repr(
        tree
    )  # repr tells 1 from True and 1.0, and NaN from nothing


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8]
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (3,), (2, 3)])
def test_tensors_come_back(dtype, shape):
    t = (torch.arange(math.prod(shape)).reshape(shape) % 2).to(dtype)
    (again,) = round_trip([t])
    assert again.dtype == dtype
    assert torch.equal(again, t)


def test_arrays_and_numpy_numbers_come_back():
    tree = {
        "a": np.arange(5, dtype=np.uint32),
        "b": np.float32(0.5),
        "c": np.int64(3),
        "d": np.True_,
    }
    again = round_trip(tree)
    assert isinstance(again["a"], np.ndarray)
    assert again["a"].dtype == np.uint32
    assert (again["a"] == tree["a"]).all()
    assert (again["b"], again["c"], again["d"]) == (0.5, 3, True)


def test_names_say_where_and_are_never_two_of_one():
    t = [torch.full((2,), float(i)) for i in range(3)]
    tree = {"state": {0: {"m": t[0]}}, "state.0.m": t[1], "l": [t[2]]}
    packed, tensors = pack(tree)
    assert set(tensors) == {"state.0.m", "state.0.m~1", "l.0"}
    again = unpack(packed, tensors)
    assert [x.tolist() for x in (again["state"][0]["m"], again["state.0.m"], again["l"][0])] == [
        [0, 0], [1, 1], [2, 2],
    ]  # fmt: skip


def test_a_tied_tensor_is_kept_once_and_parts_of_one_are_copied():
    w = torch.arange(6.0).reshape(2, 3)
    packed, tensors = pack({"in": w, "out": w, "t": w.T, "row": w[1], "none": w[:0]})
    assert set(tensors) == {"in", "t", "row", "none"}
    starts = {x.untyped_storage().data_ptr() for x in tensors.values() if x.numel()}
    assert len(starts) == 3
    assert all(x.is_contiguous() for x in tensors.values())
    again = unpack(packed, tensors)
    assert torch.equal(again["t"], w.T)
    assert torch.equal(again["row"], w[1])
    assert torch.equal(again["out"], w)


@pytest.mark.parametrize("bad", [{1, 2}, object(), b"bytes", 1j])
def test_other_things_are_refused_by_place(bad):
    with pytest.raises(
        TypeError, match=rf"a\.0\.b is a {type(bad).__name__}, which a checkpoint cannot hold"
    ):
        pack({"a": [{"b": bad}]})


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind 'set'"):
        unpack({"$": "set"}, {})
