"""Export: a trained run becomes a bundle that inspects without torch. Needs the extra `train`."""

from __future__ import annotations

from waferlens.export.bundle import export
from waferlens.export.finished import Exported

__all__ = ["Exported", "export"]
