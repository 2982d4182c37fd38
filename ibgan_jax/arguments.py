"""What the small programs of the package (`python -m ibgan_jax.NAME`) do with their arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from ibgan_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse, with its errors as one line."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(message)


def status_of(work: Callable[[], object]) -> int:
    """Does `work` and returns the exit status: 0 done, 2 the user's mistake, said in one line."""
    try:
        work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
