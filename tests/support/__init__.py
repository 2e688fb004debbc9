"""Helpers of the test suite: what tests need that is not itself a test."""
