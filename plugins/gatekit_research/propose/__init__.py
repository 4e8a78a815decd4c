"""``gatekit propose``: boundaries and variants from a profile, under a budget."""
