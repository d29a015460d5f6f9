"""What is held at its most, by counting what Python and NumPy allocate: the machine's other work is no part of it."""

from __future__ import annotations

import multiprocessing
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any


def most(function: Callable[..., Any], *arguments: Any, **how: Any) -> int:
    """Bytes that Python and NumPy allocate for a function of a module of ours, at most at once.

    It runs in a process of its own, where no other thread is counted: once to import and compile, and once more.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_counted, function, arguments, how).result()


def _counted(function: Callable[..., Any], arguments: tuple[Any, ...], how: dict[str, Any]) -> int:
    function(*arguments, **how)
    with watched() as peak:
        function(*arguments, **how)
        return peak()


@contextmanager
def watched() -> Iterator[Callable[[], int]]:
    """Count what all threads of this process allocate meanwhile; called, what it yields says the most at once [bytes].

    For bounds that are far from what is held: threads of other tests are counted, too.
    """
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
