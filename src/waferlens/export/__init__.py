"""Export: a trained run becomes a bundle that inspects without torch. Needs the extra `train`."""

from __future__ import annotations

from waferlens.export.bundle import Exported, export

__all__ = ["Exported", "export"]
