"""Runs in a browser: what the page is told, the page, its server, and the page as one file."""
