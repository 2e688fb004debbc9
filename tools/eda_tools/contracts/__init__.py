"""What services receive and send, with the types of their payloads, and whether several of them agree."""
