"""The subcommands that answer a question: their arguments, and what they print.

Imports wait until a command runs, so that ``qfitlatent --help`` answers at once.
"""

from typing import Any

COMMANDS: tuple[tuple[Any, ...], ...] = ()
"""Name, what it does, what adds its arguments, what runs it: as in the commands of prediction."""
