"""A bundle: everything a line needs to measure, in one folder or zip."""
