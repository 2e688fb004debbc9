"""What ``doctor`` finds out about a broker, and what it says about that. It prints nothing."""
