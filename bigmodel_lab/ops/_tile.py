"""Small matrix products inside kernels, at nearly the speed of a BLAS: c = a b and c += a b for tiles of a padded size.

A tile of c, ROWS x (2 vectors), stays in registers while k runs; each step loads two vectors of b, and for each of the
ROWS rows one number of a, copied to all lanes, and does 2 ROWS fused multiply-adds:

    c[i, j] = sum_k a[i, k] b[k, j]

Source: Goto and van de Geijn (2008), ACM TOMS 34(3):12, the innermost kernel; told in lab L01. LLVM does not find this
shape from a plain triple loop, so we write it in LLVM's own language: the vectors below become AVX-512, AVX2 or NEON
registers, whichever the processor has. A plain loop unrolled by hand reaches a third of the speed.

What the caller owes, as nothing is checked here: c has a multiple of ROWS rows and of `columns` columns; rows of b and c
lie contiguously (a may have any strides, such as a.T); the shapes fit and a has at least one column.

A kernel cached on disk does not notice that this file has changed: `_stale` does, at the next import.
"""

import llvmlite.binding
from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic


def _vector_bytes_and_rows():
    """The widest vector of this processor and how many rows of accumulators fit its registers (with 2 columns of them)."""
    if (
        config.CPU_NAME
    ):  # numba was told to compile for another processor than this one: take what they all have
        return 32, 4
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 8  # 32 registers
    return (32, 4) if features.get("avx2") else (16, 4)


VECTOR_BYTES, ROWS = _vector_bytes_and_rows()


@njit(error_model="numpy")
def columns(itemsize):
    """The number of columns of a tile, for numbers of `itemsize` bytes; matrices are padded to a multiple of it."""
    return 2 * VECTOR_BYTES // itemsize


@njit(error_model="numpy")
def product(a, b, c):
    """c = a b."""
    step = columns(c.itemsize)
    for i in range(0, c.shape[0], ROWS):
        for j in range(0, c.shape[1], step):
            _tile(a, b, c, i, j, b.shape[0])


@njit(error_model="numpy")
def add_product(a, b, c):
    """c += a b. The product is summed up first and c added last, which keeps the rounding error of long sums small."""
    step = columns(c.itemsize)
    for i in range(0, c.shape[0], ROWS):
        for j in range(0, c.shape[1], step):
            _tile_added(a, b, c, i, j, b.shape[0])


def _make(add):
    def tile(typing_context, a, b, c, i, j, k_end):
        signature = types.void(a, b, c, types.intp, types.intp, types.intp)
        size = c.dtype.bitwidth // 8
        number = {4: ir.FloatType(), 8: ir.DoubleType()}[size]
        lanes, long, short = VECTOR_BYTES // size, ir.IntType(64), ir.IntType(32)
        vector = ir.VectorType(number, lanes)

        def generate(context, builder, sig, args):
            A, B, C = (context.make_array(sig.args[n])(context, builder, args[n]) for n in range(3))
            i, j, k_end = args[3:]

            def address(array, row, column):
                """The address of array[row, column]; strides are in bytes."""
                strides = cgutils.unpack_tuple(builder, array.strides, 2)
                offset = builder.add(builder.mul(row, strides[0]), builder.mul(column, strides[1]))
                start = builder.bitcast(array.data, ir.IntType(8).as_pointer())
                return builder.gep(start, [offset])

            def load(kind, where):
                loaded = builder.load(builder.bitcast(where, kind.as_pointer()))
                loaded.align = size
                return loaded

            def plus(value, constant):
                return builder.add(value, ir.Constant(long, constant))

            places = [
                address(C, plus(i, r), plus(j, half * lanes))
                for r in range(ROWS)
                for half in range(2)
            ]
            fma = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(vector, [vector] * 3),
                f"llvm.fma.v{lanes}f{8 * size}",
            )
            before = builder.block
            loop, after = builder.append_basic_block("k"), builder.append_basic_block("after")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(long)
            k.add_incoming(ir.Constant(long, 0), before)
            sums = [builder.phi(vector) for _ in places]
            for s in sums:
                s.add_incoming(ir.Constant(vector, [0.0] * lanes), before)
            from_b = [load(vector, address(B, k, plus(j, half * lanes))) for half in range(2)]
            new = []
            for r in range(ROWS):
                one = load(number, address(A, plus(i, r), k))
                first = builder.insert_element(
                    ir.Constant(vector, ir.Undefined), one, ir.Constant(short, 0)
                )
                zeros = ir.Constant(ir.VectorType(short, lanes), [0] * lanes)
                copied = builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)
                new += [
                    builder.call(fma, [copied, from_b[half], sums[2 * r + half]])
                    for half in range(2)
                ]
            next_k = plus(k, 1)
            k.add_incoming(next_k, loop)
            for s, n in zip(sums, new, strict=True):
                s.add_incoming(n, loop)
            builder.cbranch(builder.icmp_signed("<", next_k, k_end), loop, after)
            builder.position_at_end(after)
            for where, n in zip(places, new, strict=True):
                value = builder.fadd(n, load(vector, where)) if add else n
                store = builder.store(value, builder.bitcast(where, vector.as_pointer()))
                store.align = size
            return context.get_dummy_value()

        return signature, generate

    return intrinsic(tile)


_tile, _tile_added = _make(add=False), _make(add=True)
