"""What services cost, beside other clients of RabbitMQ in one run: ``python -m benchmarks.peers``."""
