"""The report of a run: one page for people, that needs nothing but itself."""
