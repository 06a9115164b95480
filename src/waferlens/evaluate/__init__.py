"""Agreement with truth, intervals and baselines: of bundles only, so that what is judged is what a line will run."""
