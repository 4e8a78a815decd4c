"""``gatekit report``: one page of a run or a sweep that needs no other file."""
