"""LoRAs for Wan transformers: read from headers, checked against a model, applied to it."""
