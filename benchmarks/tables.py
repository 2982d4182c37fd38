"""What tables of results are made with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ibgan_jax.errors import UserError


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table; its first line are the heads."""
    heads, *rows = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([heads, "|" + "---|" * len(lines[0]), *rows]) + "\n"


def read(path: Path) -> Any:
    """JSON. Raises UserError when it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
