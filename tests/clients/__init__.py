"""Clients that are not ours, on the embedded broker, as our plugin for pytest gives it: nox -s clients."""
