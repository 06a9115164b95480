"""Training: losses, tasks, batches, and the run that ties them together. Needs the extra `train`."""

from __future__ import annotations

from waferlens.train.run import DATA, WEIGHTS, Trained, train

__all__ = ["DATA", "WEIGHTS", "Trained", "train"]
