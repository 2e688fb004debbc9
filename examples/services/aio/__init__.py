"""The example services in coroutines."""
