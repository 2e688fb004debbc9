"""Compares the broker model with a real RabbitMQ: one client does the same on both, and has to see the same."""
