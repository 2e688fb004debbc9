"""The machine, which decides everything that a service does on the bus, and its parts. It does no I/O."""
