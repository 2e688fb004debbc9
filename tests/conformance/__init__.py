"""The conformance kit at work: what runs its checks, what they run against, and the adapters put to them."""
