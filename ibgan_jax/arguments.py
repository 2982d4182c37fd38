"""What the small programs of the package (`python -m ibgan_jax.NAME`) do with their arguments."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from typing import NoReturn

from ibgan_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse, with its errors as one line."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(message)


def program(work: Callable[..., object]) -> Callable[..., int]:
    """Makes of `work` a function of the same arguments that returns the exit status.

    It is 0 when the work is done and 2 after a UserError, which it prints in one line.
    """

    @functools.wraps(work)
    def main(*arguments: object) -> int:
        try:
            work(*arguments)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    return main
