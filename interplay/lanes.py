"""Thirty-two signs from one word at once, in vector instructions that numba does not arrive at by itself.

Bit i of a word is the sign of element i: 0 is +, 1 is -. As a vector of 32 booleans a word chooses
between two constants, which a CPU does in one or two instructions per register; from a loop over bits
numba makes a shift, a mask, a conversion and a product for each element, and then noise costs as much as the
memory that it is added to. LLVM translates both for any little-endian CPU.

numba keeps compiled functions by the file they stand in: whoever changes this file removes the caches of `noise.py` and `kernels.py`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import errors, extending, types

LANES = 32
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_FIRST = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)  # lane 0 for every lane
intrinsic: Any = extending.intrinsic  # its types describe the definition, not the call: the first argument below is numba's
_FLOAT_BYTES = 4  # where an element lies is known to that many bytes


@intrinsic
def spread(typingctx: Any, out: Any, i: Any, word: Any) -> Any:
    """out[i : i + 32] = signs of `word`. The 32 elements must exist: nothing is checked."""
    del typingctx, i, word
    _check(out)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out_N, place, bits = arguments
        signs = _chosen(builder, bits, ir.Constant(_FLOATS, [-1.0] * LANES), ir.Constant(_FLOATS, [1.0] * LANES))
        builder.store(signs, _at(context, builder, signature.args[0], out_N, place), align=_FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(out, types.intp, types.uint32), codegen


@intrinsic
def add_signs(typingctx: Any, out: Any, base: Any, i: Any, word: Any, c: Any) -> Any:
    """out[i : i + 32] = base[i : i + 32] + c * signs of `word`; `out` may be `base`. The 32 elements must exist: nothing is checked."""
    del typingctx, i, word, c
    _check(out, base)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out_N, base_N, place, bits, size = arguments
        change = _chosen(builder, bits, _everywhere(builder, builder.fneg(size)), _everywhere(builder, size))
        values = builder.load(_at(context, builder, signature.args[1], base_N, place), align=_FLOAT_BYTES)
        builder.store(builder.fadd(values, change), _at(context, builder, signature.args[0], out_N, place), align=_FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(out, base, types.intp, types.uint32, types.float32), codegen


def _check(*arrays: Any) -> None:
    """Addresses are computed, so only one form of array will do. Raises `TypingError` when a function is compiled for another."""
    for kind in arrays:
        if not (isinstance(kind, types.Array) and kind.dtype == types.float32 and kind.ndim == 1 and kind.layout == "C"):
            raise errors.TypingError(f"signs are written to contiguous float32 vectors, not to {kind}")


def _chosen(builder: Any, bits: Any, if_one: Any, if_zero: Any) -> Any:
    return builder.select(builder.bitcast(bits, _BITS), if_one, if_zero)


def _everywhere(builder: Any, value: Any) -> Any:
    """One number in all lanes."""
    nothing = ir.Constant(_FLOATS, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0)), nothing, _FIRST)


def _at(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    """Where 32 elements of a contiguous array of floats begin."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), _FLOATS.as_pointer())
