"""What every operation does to its arrays before a kernel sees them: check the dtype, make the memory plain."""

import numpy as np

from bigmodel_lab.errors import require_float

_DTYPES = {np.dtype(np.float32), np.dtype(np.float64)}


def kernel_arrays(**arrays) -> list[np.ndarray]:
    """Return the named arrays as C-contiguous, aligned, writable arrays of one dtype, float32 or float64.

    An array that is so already is returned as it is. Any other, such as a transposed, strided or read-only one, is
    copied, so that each kernel is compiled once for each dtype and not once for each layout.

    Raises TypeError if one is no array, is not float32 or float64, or the dtypes differ.
    """
    for name, a in arrays.items():
        if not isinstance(a, np.ndarray):
            raise TypeError(
                f"{name} must be a NumPy array, got {type(a).__name__}: wrap it in np.asarray(...)."
            )
    names = " and ".join(arrays)
    require_float(names, *arrays.values())
    dtype = next(iter(arrays.values())).dtype
    if dtype not in _DTYPES:
        raise TypeError(
            f"{names} must be float32 or float64, got {dtype}: the kernels are compiled for these two. "
            "Convert with .astype(np.float32)."
        )
    return [np.asarray(a) if a.flags.carray else np.array(a, order="C") for a in arrays.values()]
