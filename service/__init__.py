"""HTTP service for tagging and search, with a web page."""
