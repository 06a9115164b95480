"""The package station's simulator: IC packages under a microscope with three lights."""
