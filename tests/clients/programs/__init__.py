"""What the users of the clients write."""
