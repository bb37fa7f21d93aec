"""The viewer: one page in the browser, and the small server that gives it the stores' bytes."""
