"""Built-in gatekit plugin: basics."""
