"""Settings of simulated data sets."""

from typing import Any

from qfitlatent.base import config
from qfitlatent.simulate.settings import SimulatorSettings


def simulator(**changes: Any) -> SimulatorSettings:
    """The default simulator with these keys of the section ``simulate`` changed."""
    return config.settings(SimulatorSettings, "simulate", changes)
