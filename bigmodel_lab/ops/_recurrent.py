"""What the recurrent cells share: the two affine maps into them, from the input and from the state, and their gradients.

    a = x w_ih^T + b_ih,    g = h w_hh^T + b_hh

Shapes: B sequences, E width of the input, D width of the state, G D rows of gates: G = 1 for the plain cell, 3 for a GRU.
"""

import numpy as np

from bigmodel_lab.errors import require_in_range, require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._reduce import column_sums


def into_cell(x, h, w_ih, w_hh, b_ih, b_hh, n_gates, matmul):
    """Check the arguments of a cell and return the products of its two maps, without their biases.

    Returns a and g (B, G D), the biases (zeros where None was given), and the cache for `out_of_cell`. g is fresh memory
    for the cell to use; a is x itself if w_ih is None. Raises ValueError if shapes do not fit, TypeError for dtypes.
    """
    B, D = require_shape("h", h, "B D").values()
    require_in_range("the width D of h", D, 1)
    rows = n_gates * D
    letter = "D" if n_gates == 1 else f"{n_gates}D"
    if w_ih is None:
        require_shape("x", x, f"B {letter}", **{"B": B, letter: rows})
        if b_ih is not None:
            raise ValueError(
                "b_ih was given and w_ih is None: x is then the finished share of the input, its bias included."
            )
    else:
        E = require_shape("x", x, "B E", B=B)["E"]
        require_shape("w_ih", w_ih, f"{letter} E", **{letter: rows, "E": E})
    rows_letter = (
        "rows" if n_gates == 1 else letter
    )  # a name of its own, so that an error can tell them apart
    require_shape("w_hh", w_hh, f"{rows_letter} D", **{rows_letter: rows, "D": D})
    arrays = {"x": x, "h": h, "w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    for name in ("b_ih", "b_hh"):
        if arrays[name] is not None:
            require_shape(name, arrays[name], letter, **{letter: rows})
    given = {name: a for name, a in arrays.items() if a is not None}
    arrays |= dict(zip(given, kernel_arrays(**given), strict=True))
    x, h, w_ih, w_hh, b_ih, b_hh = arrays.values()
    has_bias = b_ih is not None, b_hh is not None
    b_ih, b_hh = (np.zeros(rows, h.dtype) if b is None else b for b in (b_ih, b_hh))
    a, g = x, np.empty((B, rows), h.dtype)
    if w_ih is not None:
        a = np.empty((B, rows), h.dtype)
        matmul(x, w_ih.T, out=a)
    matmul(h, w_hh.T, out=g)
    kept_x = None if w_ih is None else x
    return a, g, b_ih, b_hh, (kept_x, h, w_ih, w_hh, *has_bias, matmul)


def out_of_cell(da, dg, dh, cache):
    """Return (dx, dh, dw_ih, dw_hh, db_ih, db_hh) from the gradients of a and g.

    `dh` is what reached the state beside the map; the share of the map is added to it in place. What was not given to the
    cell gets None.
    """
    x, h, w_ih, w_hh, has_b_ih, has_b_hh, matmul = cache
    through, dw_hh = np.empty_like(dh), np.empty_like(w_hh)
    matmul(dg, w_hh, out=through)
    dh += through
    matmul(dg.T, h, out=dw_hh)
    dx, dw_ih = da, None
    if w_ih is not None:
        dx, dw_ih = np.empty_like(x), np.empty_like(w_ih)
        matmul(da, w_ih, out=dx)
        matmul(da.T, x, out=dw_ih)
    db_ih = _column_sums(da) if has_b_ih else None
    db_hh = _column_sums(dg) if has_b_hh else None
    return dx, dh, dw_ih, dw_hh, db_ih, db_hh


def _column_sums(a):
    out = np.empty(a.shape[1], a.dtype)
    column_sums(a, out)
    return out
