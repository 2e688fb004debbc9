"""The broker model against a real RabbitMQ: the same operations, through the same client, must look the same."""
