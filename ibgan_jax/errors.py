"""The one exception that stands for a mistake of the user's, and how others become one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something that the user can put right: a wrong name, path, setting or device.

    Its message is one line that says what was wrong and what is allowed. The command line
    prints it without a traceback and exits with status 2.
    """


def one_line(error: BaseException, longest: int = 200) -> str:
    """What `error` says, on one line of at most `longest` characters; its name if it is silent."""
    return (" ".join(str(error).split()) or type(error).__name__)[:longest]


@contextmanager
def blamed_on(place: Path, verdict: str, advice: str) -> Iterator[None]:
    """Over missing or damaged files, TFDS, ArrayRecord and Pillow raise almost anything.

    Raises UserError, "`place` `verdict` (what was raised)`advice`", whatever Exception is raised.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{place} {verdict} ({one_line(error)}){advice}") from error
