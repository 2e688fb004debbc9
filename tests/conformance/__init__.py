"""Runs the checks of the conformance kit against the adapters, on the brokers."""
