"""Built-in gatekit plugin: samplers."""
