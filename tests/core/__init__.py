"""The pure core, module by module: each test file alone covers every branch of its module."""
