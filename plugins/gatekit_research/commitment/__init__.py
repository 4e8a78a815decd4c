"""``gatekit commitment``: when coarse, middle and fine bands of the prediction settle."""
