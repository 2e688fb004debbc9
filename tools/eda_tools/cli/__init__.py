"""What all tools have in common on the command line: arguments, output, signals, exit statuses."""
