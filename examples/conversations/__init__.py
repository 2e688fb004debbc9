"""A pipeline of services that anonymizes, tags and archives transcripts of conversations.

Start with ``python -m examples.conversations.demo``; ``README.rst`` says what there is to see.
"""
