"""Calibrated measurements from single images of semiconductor surfaces."""

__version__ = "0.1.0"
