"""The programs that are measured, one for each client. Each runs in the environment that has its library."""
