"""Runs logged to MLflow, Weights & Biases or OpenTelemetry, extras behind one interface."""

from drpo.tracking.base import RunFacts, Tracker
from drpo.tracking.trackers import Trackers, open_trackers

__all__ = ["RunFacts", "Tracker", "Trackers", "open_trackers"]
