"""Built-in gatekit plugin: wan22."""
