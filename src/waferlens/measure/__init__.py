"""Surfaces and dies: what a map of heights says about them."""
