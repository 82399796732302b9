"""Taking things away, one after the other, whatever happens to one of them."""

from __future__ import annotations

from collections.abc import Callable


def try_all(*steps: Callable[[], object]) -> list[Exception]:
    """Take all steps, in order.

    :return: what failed.
    """
    failures: list[Exception] = []
    for step in steps:
        try:
            step()
        except Exception as error:
            failures.append(error)
    return failures
