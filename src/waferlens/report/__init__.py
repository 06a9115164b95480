"""Pictures and pages: what runs, evaluations and surfaces say, on one page that needs nothing but itself."""
