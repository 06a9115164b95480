"""Worlds: images whose truth is known exactly, and the checks that hold a simulator to its physics."""
