"""What holds for every recurrent cell; `both_ways(args, dy)` gives the new state and all gradients."""

import numpy as np


def check_other_layouts(both_ways, args, dy):
    """Strided arguments give the same, and are left as they were."""
    clean = both_ways(args, dy)
    strange = [np.repeat(a, 2, axis=0)[::2] for a in args]
    for got, want in zip(both_ways(strange, np.asfortranarray(dy)), clean, strict=True):
        np.testing.assert_array_equal(got, want)
    for a, b in zip(strange, args, strict=True):
        np.testing.assert_array_equal(a, b)


def check_ready_made_share(both_ways, args, dy):
    """With w_ih=None, x is the input's share: the same state, and gradients that follow from the share's."""
    x, h, w_ih, w_hh, b_ih, b_hh = args
    share = x @ w_ih.T + b_ih
    before = share.copy()
    want = both_ways(args, dy)
    y, da, dh, dw_ih, dw_hh, db_ih, db_hh = both_ways((share, h, None, w_hh, None, b_hh), dy)
    np.testing.assert_array_equal(share, before)
    assert dw_ih is None
    assert db_ih is None
    got = y, da @ w_ih, dh, da.T @ x, dw_hh, da.sum(0), db_hh
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
