"""eda_aio at work, on the embedded broker and on RabbitMQ."""
