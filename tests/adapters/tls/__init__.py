"""Brokers that speak TLS, and services that trust them or do not."""
