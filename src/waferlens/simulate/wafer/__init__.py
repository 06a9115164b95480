"""High-topology wafers under a scanning microscope, with the track of its auto-focus and exact heights."""
