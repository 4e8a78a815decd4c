"""``gatekit sweep``: many runs from one file, each done once, compared on equal noise."""
