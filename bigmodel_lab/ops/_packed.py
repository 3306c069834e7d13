"""Dot products of packed small weights with numbers rounded to 16 bits, inside kernels: what decoding spends its time on.

A weight of 4 or 8 bits could be turned into a float32 and multiplied. That costs three instructions for 16 weights, and
one core then falls behind its memory. Whole numbers are cheaper: one instruction of AVX-512 VNNI multiplies 32 pairs of
16-bit numbers and adds them up, exactly, in 32 bits. So each group of GROUP = 64 numbers of x is rounded to 16 bits first:

    x[d] ~ s t[d],    s = max_d |x[d]| / 32767,    |x[d] - s t[d]| <= s / 2

an error of about 2e-5 of the sum, some 400 times below that of 8-bit weights. The sum over a group, at most
64 * 127 * 32767 < 2^31, is exact; only then it becomes a float32 and is multiplied by s and by the weights' own factor.

The loops are written in LLVM's own language, as in `_tile.py`: from a plain loop LLVM makes multiplications in 64 bits.
The vectors below become AVX-512, AVX2 or NEON instructions, whichever the processor has. One row of weights is read after
the other, as it lies in memory: four rows side by side, to load x once for all, measured half as fast on large matrices.

What the caller owes, as nothing is checked here: one-dimensional contiguous arrays of the shapes that are named.

A kernel cached on disk does not notice that this file has changed: `_stale` does, at the next import.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

GROUP = 64  # numbers that share a factor
LANES = 8  # of `corrections`: as many 32-bit numbers as the sums of a group of 4-bit weights have
_SMALLEST = np.float32(2.0**-126)  # factors below it, where float32 loses its digits, become 0
_TOP = np.float32(32767)

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32 = ir.FloatType()


@njit(error_model="numpy")
def round_to_16_bits(x, t, s, corrections):
    """Round a row x (D,), padded with zeros to G groups, to s[g] t[g * GROUP + j]; t int16 (G * GROUP,), s float32 (G,).

    corrections, int32 (G, LANES), becomes -8 times the sum of those t of a group that a lane of `dot_int4` multiplies, which
    are 2 lane and 2 lane + 1 of each 16: its weights are stored as n = 8 + weight. A group that holds NaN or infinity gets
    s = NaN, so that every sum over it is NaN.
    """
    zero = np.float32(0)
    for g in range(len(s)):
        first, end = g * GROUP, min(x.size, (g + 1) * GROUP)
        largest, finite = zero, True
        for d in range(first, end):
            size = abs(x[d])
            finite &= size < np.inf
            largest = size if size > largest else largest
        factor = largest / _TOP
        if not finite:
            factor = np.float32(np.nan)
        usable = factor >= _SMALLEST
        inverse = _TOP / largest if usable else zero
        s[g] = factor if usable or not finite else zero
        for d in range(first, end):
            t[d] = np.int16(np.rint(x[d] * inverse)) if usable else np.int16(0)
        for d in range(end, (g + 1) * GROUP):
            t[d] = 0
        corrections[g, :] = 0
        for j in range(GROUP):
            corrections[g, j // 2 % LANES] -= 8 * np.int32(t[first + j])


def _splat(builder, value, kind):
    """A vector of `kind` with `value` in all lanes."""
    nothing = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(_I32, kind.count), None))


def _dot_of_pairs(builder, a, b):
    """a[0] b[0] + a[1] b[1], a[2] b[2] + a[3] b[3], ... in 32 bits, for vectors of 16-bit numbers."""
    n = a.type.count
    wide = ir.VectorType(_I32, n)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    nothing = ir.Constant(wide, ir.Undefined)
    even, odd = (
        ir.Constant(ir.VectorType(_I32, n // 2), list(range(start, n, 2))) for start in (0, 1)
    )
    return builder.add(
        builder.shuffle_vector(products, nothing, even),
        builder.shuffle_vector(products, nothing, odd),
    )


def _int8_group(builder, load, w, x, _):
    """The sums over a group of 64 weights of 8 bits at w, and 64 16-bit numbers at x: 16 lanes."""
    total = None
    for half in range(2):
        weights = load(ir.VectorType(_I8, 32), w, 32 * half)
        numbers = load(ir.VectorType(_I16, 32), x, 64 * half)
        part = _dot_of_pairs(builder, builder.sext(weights, numbers.type), numbers)
        total = part if total is None else builder.add(total, part)
    return total


def _int4_group(builder, load, w, x, correction):
    """The same for 64 weights of 4 bits in 32 bytes, read as 16 words; word i holds the weights i, i+16, i+32, i+48."""
    kind = ir.VectorType(_I16, 16)
    words, total = load(kind, w, 0), load(ir.VectorType(_I32, LANES), correction, 0)
    for part in range(4):
        weights = builder.lshr(words, ir.Constant(kind, [4 * part] * 16)) if part else words
        weights = builder.and_(weights, ir.Constant(kind, [15] * 16))
        total = builder.add(total, _dot_of_pairs(builder, weights, load(kind, x, 32 * part)))
    return total


def _make(group_sums, w_bytes, lanes, scaled):
    """An intrinsic that adds up group_sums * s (* scale, if `scaled`) over the groups of a row."""

    def dot(typing_context, w, scale, t, s, corrections, n_groups):
        signature = types.float32(w, scale, t, s, corrections, types.intp)

        def generate(context, builder, sig, args):
            starts = [
                builder.bitcast(
                    context.make_array(kind)(context, builder, a).data, _I8.as_pointer()
                )
                for kind, a in zip(sig.args[:5], args[:5], strict=True)
            ]
            strides = w_bytes, 4, 2 * GROUP, 4, 4 * LANES  # bytes from one group to the next
            n_groups, floats = args[5], ir.VectorType(_F32, lanes)
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(floats, [floats] * 3), f"llvm.fma.v{lanes}f32"
            )
            add_up = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(_F32, [_F32, floats]),
                f"llvm.vector.reduce.fadd.v{lanes}f32",
            )

            def load(kind, start, offset):
                where = builder.gep(start, [ir.Constant(_I64, offset)])
                loaded = builder.load(builder.bitcast(where, kind.as_pointer()))
                loaded.align = 1
                return loaded

            before, test = builder.block, builder.append_basic_block("test")
            loop, after = builder.append_basic_block("group"), builder.append_basic_block("after")
            builder.branch(test)
            builder.position_at_end(test)
            g, total = builder.phi(_I64), builder.phi(floats)
            g.add_incoming(ir.Constant(_I64, 0), before)
            total.add_incoming(ir.Constant(floats, [0.0] * lanes), before)
            builder.cbranch(builder.icmp_signed("<", g, n_groups), loop, after)
            builder.position_at_end(loop)
            w, scale, t, s, correction = (
                builder.gep(start, [builder.mul(g, ir.Constant(_I64, stride))])
                for start, stride in zip(starts, strides, strict=True)
            )
            sums = builder.sitofp(group_sums(builder, load, w, t, correction), floats)
            factor = load(_F32, s, 0)
            if scaled:
                factor = builder.fmul(factor, load(_F32, scale, 0))
            total.add_incoming(
                builder.call(fma, [sums, _splat(builder, factor, floats), total]), loop
            )
            g.add_incoming(builder.add(g, ir.Constant(_I64, 1)), loop)
            builder.branch(test)
            builder.position_at_end(after)
            return builder.call(add_up, [ir.Constant(_F32, 0.0), total], fastmath=("reassoc",))

        return signature, generate

    return intrinsic(dot)


# dot_int8(q, scale, t, s, corrections, n_groups): sum_g s[g] sum_j q[64 g + j] t[64 g + j]; scale, corrections are not read
# dot_int4(packed, scale, t, s, corrections, n_groups): sum_g s[g] scale[g] sum_j (n[g, j] - 8) t[64 g + j], n the 4-bit numbers
dot_int8 = _make(_int8_group, GROUP, 16, scaled=False)
dot_int4 = _make(_int4_group, GROUP // 2, LANES, scaled=True)
