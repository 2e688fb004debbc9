"""Runs the conformance checks on real brokers: the one part of the kit that has sockets, threads and a clock."""
