"""The small model: a Wan-architecture video model that ships with gatekit."""
