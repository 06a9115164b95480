"""Training: losses, tasks, batches, and the run that ties them together. Needs the extra `train`."""

from __future__ import annotations

from waferlens.train.run import WEIGHTS, Trained, train

__all__ = ["WEIGHTS", "Trained", "train"]
