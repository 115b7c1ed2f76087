"""``python -m qfitlatent``."""

import sys

from qfitlatent.cli import main

sys.exit(main())
