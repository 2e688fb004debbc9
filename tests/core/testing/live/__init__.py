"""Real brokers for tests, and what stands between them and the services."""
