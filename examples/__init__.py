"""Examples of services written with the toolkit."""
