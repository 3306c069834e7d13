"""`compare` says what is wrong before it says how much."""

import numpy as np
import pytest
import torch

from bigmodel_lab.course import compare
from bigmodel_lab.course.compare import difference

W = np.random.default_rng(0).normal(size=(4, 4))
TOL = 1e-7


def miss(got, want=W, tol=TOL, **known):
    return difference("dw", got, want, tol, **known)


def test_prints_one_line_and_returns_the_verdict(capsys):
    assert compare("dw", W * (1 + 1e-9), W, TOL)
    assert not compare("dw", 2 * W, W, TOL)
    assert capsys.readouterr().out == (
        "dw agrees to a relative error of 1e-07 (shape (4, 4))\n"
        "dw is 2 times too large in every entry: look for a square or a one-half.\n"
    )


def test_the_line_for_agreement_does_not_depend_on_rounding(capsys):
    for noise in (0, 1e-16, 3e-9):
        compare("dw", W + noise, W, TOL)
    assert len(set(capsys.readouterr().out.splitlines())) == 1


def test_tolerance_is_relative_to_the_largest_entry():
    want = np.array([1000.0, 1e-6])
    assert miss(want + np.array([0, 0.9e-4]), want, 1e-7) is None
    assert miss(want + np.array([0, 1.1e-4]), want, 1e-7)
    assert miss(np.array([1e-8]), np.zeros(1), 1e-7) is None
    assert miss(np.array([1e-6]), np.zeros(1), 1e-7)


def test_tolerance_zero_asks_for_every_bit(capsys):
    assert compare("dw", W, W, 0)
    assert capsys.readouterr().out == "dw equals what is expected exactly (shape (4, 4))\n"
    assert miss(np.nextafter(W, 9), tol=0)
    with pytest.raises(ValueError, match="tol must be at least 0"):
        miss(W, tol=-1)


@pytest.mark.parametrize(
    ("got", "words"),
    [
        (2 * W, "2 times too large in every entry: look for a square or a one-half"),
        (W / 2, "2 times too small in every entry"),
        (3.7 * W, "3.7 times too large in every entry."),
        (-W, "sign flipped"),
        (-2 * W, "2 times too large in every entry, sign flipped"),
        (W.T, "transposed"),
        (W + 0.5, "0.5 too large in every entry"),
        (W[:3], "has shape (3, 4) and should have (4, 4)."),
        (W.ravel(), "the numbers are right, reshape them"),
        (W[None], "reshape"),
        (W * np.nan, "16 of 16 entries NaN or infinite; the first, NaN, at [0, 0]"),
        (
            np.where(W == W[2, 1], np.inf, W),
            "1 of 16 entries NaN or infinite; the first, infinite, at [2, 1]",
        ),
        (W + 0.1 * (W == W[2, 1]), "1 of 16 entries are off; the largest miss is at [2, 1]"),
        ("a", "must be an array of real numbers, got str"),
        (None, "must be an array of real numbers, got NoneType"),
        (W * 1j, "must be an array of real numbers, got an array of complex128"),
        ([[1], [2, 3]], "must be an array of numbers, got list"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_names_the_mistake(got, words):
    assert words in miss(got)


def test_shape_mistakes_in_an_oblong():
    rows = np.random.default_rng(1).normal(size=(5, 3, 2))
    want = rows[0]
    assert "has shape (2, 3) and should have (3, 2): it is transposed." in miss(want.T, want)
    assert "not summed over axis 0, of length 5" in miss(rows, rows.sum(0))
    assert "not averaged over axis 0, of length 5" in miss(rows, rows.mean(0))


def test_batch_size_is_called_by_its_name():
    assert (
        "32 times too large in every entry: that is the batch size, a sum where the mean"
        in miss(32 * W, batch=32)
    )
    assert (
        "32 times too small in every entry: that is the batch size, a mean where the sum"
        in miss(W / 32, batch=32)
    )
    assert "batch" not in miss(16 * W, batch=32)


def test_dtype_on_request():
    assert miss(W.astype(np.float32), tol=1e-6) is None
    assert "right values but dtype float32: it should keep float64" in miss(
        W.astype(np.float32), tol=1e-6, same_dtype=True
    )


def test_numbers_and_tensors():
    assert miss(1.0, 1.0) is None
    assert miss(float("nan"), 1.0) == "dw is NaN."
    assert "2 times too large" in miss(2.0, 1.0)
    assert "must be a real number, got str" in miss("x", 1.0)
    assert miss(torch.tensor(W, requires_grad=True)) is None


def test_nan_expected_in_the_same_place_agrees():
    want = np.array([1.0, np.nan, np.inf])
    assert miss(want.copy(), want) is None
    assert "the first, infinite, at [2]" in miss(np.array([1.0, np.nan, -np.inf]), want)
    assert miss(np.array([1.0, 2.0, np.inf]), want) == (
        "dw differs: 1 of 3 entries are off; the largest miss is at [1], 2 where nan is right (tolerance 1e-07 of the "
        "largest entry)."
    )
