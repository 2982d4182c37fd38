"""The one exception that stands for a mistake of the user's."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can put right: a wrong name, path, setting or device.

    Its message is one line that says what was wrong and what is allowed. The command line
    prints it without a traceback and exits with status 2.
    """
