"""The example services in callbacks."""
