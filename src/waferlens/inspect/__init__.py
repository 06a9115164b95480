"""Images in; maps, measurements with intervals, verdicts out."""

from __future__ import annotations

from waferlens.inspect.run import InspectResult, inspect_paths

__all__ = ["InspectResult", "inspect_paths"]
