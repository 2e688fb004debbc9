"""Messages as the tools read, select, show and record them. It opens no connection."""
