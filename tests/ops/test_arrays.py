"""What arrays the operations take, and what they say about others."""

import numpy as np
import pytest

from bigmodel_lab.ops._arrays import kernel_arrays

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_a_plain_array_is_not_copied():
    (a,) = kernel_arrays(x=X)
    assert a is X


@pytest.mark.parametrize(
    "view", [X.T, X[:, ::2], X[::-1], np.broadcast_to(X[0], (3, 4)), np.asfortranarray(X)]
)
def test_any_other_layout_is_copied_into_a_plain_array(view):
    (a,) = kernel_arrays(x=view)
    assert a.flags.carray
    np.testing.assert_array_equal(a, view)


def test_a_read_only_array_is_copied():
    locked = X.copy()
    locked.flags.writeable = False
    (a,) = kernel_arrays(x=locked)
    assert a.flags.writeable


def test_errors_say_which_argument_and_what_to_do():
    with pytest.raises(
        TypeError, match=r"^w must be a NumPy array, got list: wrap it in np.asarray\(...\).$"
    ):
        kernel_arrays(x=X, w=[[1.0]])
    with pytest.raises(TypeError, match=r"^x must be floating point, got dtype int64"):
        kernel_arrays(x=np.zeros(3, np.int64))
    with pytest.raises(
        TypeError, match=r"^x and w must share one dtype, got .'float32', 'float64'.*astype"
    ):
        kernel_arrays(x=X, w=X.astype(np.float64))
    with pytest.raises(
        TypeError, match=r"^x must be float32 or float64, got float16: .*astype\(np.float32\).$"
    ):
        kernel_arrays(x=X.astype(np.float16))
    with pytest.raises(TypeError, match=r"^x must be float32 or float64, got >f4"):
        kernel_arrays(x=X.astype(">f4"))
