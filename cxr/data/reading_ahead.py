"""Read files in threads, a few ahead of the caller, so that neither waits for the other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item], ahead: int, threads: int) -> Iterator[Result]:
    """read() of each item, in their order, with at most `ahead` results waiting: of 100,000 images, few are in memory
    at a time. (Executor.map() begins with all of them.)"""
    left = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque(pool.submit(read, item) for item in islice(left, ahead))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(read, item) for item in islice(left, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
