"""How the numeric kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a loop on first use, to run without the GIL; keep the machine code on disk where there is a place for it.

    NumPy's error model leaves out the test for zero before every division: painting turns away a tracer outside its
    window in 4 ns instead of 8.
    """
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return numba.njit(nogil=True, error_model="numpy")(function)


def _prefetch(typingctx: Any, array: Any, index: Any) -> Any:  # noqa: ARG001
    """Ask for the cache line of ``array[index]``, to be written; the array is one-dimensional and contiguous."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, i32(1), i32(3), i32(1)])  # for writing, near, data
        return context.get_dummy_value()

    return types.void(array, index), generate


prefetch: Any = intrinsic(_prefetch)


def _add_scaled(typingctx: Any, array: Any, index: Any, weight: Any, values: Any) -> Any:  # noqa: ARG001
    """Add ``weight * values`` to the numbers from ``array[index]`` on, all at once; the bounds are the caller's."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        flat, at, factor, added = arguments
        double = ir.DoubleType()
        width = signature.args[3].count
        vector, lane = ir.VectorType(double, width), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, flat).data
        place = builder.bitcast(builder.gep(data, [at]), vector.as_pointer())
        factors, numbers = ir.Constant(vector, ir.Undefined), ir.Constant(vector, ir.Undefined)
        for i in range(width):
            factors = builder.insert_element(factors, factor, lane(i))
            numbers = builder.insert_element(numbers, builder.extract_value(added, i), lane(i))
        before = builder.load(place, align=8)
        builder.store(builder.fadd(before, builder.fmul(factors, numbers)), place, align=8)
        return context.get_dummy_value()

    return types.void(array, index, weight, values), generate


add_scaled: Any = intrinsic(_add_scaled)


def _value_at(kind: ir.Type, given: Any) -> Any:
    """An intrinsic that reads number ``index`` of those that begin at an ``address``; the bounds are the caller's."""

    def read(typingctx: Any, address: Any, index: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            return builder.load(builder.gep(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]]))

        return given(types.int64, types.int64), generate

    return intrinsic(read)


float32_at: Any = _value_at(ir.FloatType(), types.float32)
byte_at: Any = _value_at(ir.IntType(8), types.uint8)
