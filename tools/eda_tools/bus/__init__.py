"""What the tools do on the bus: connect, read queues and streams of messages, publish."""
