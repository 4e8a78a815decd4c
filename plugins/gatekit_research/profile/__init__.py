"""``gatekit profile``: how far each variant's predictions are from the reference's, by sigma."""
