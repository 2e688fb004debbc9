"""Tests of eda_aio, on the embedded broker and on RabbitMQ."""
