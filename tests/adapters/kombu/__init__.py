"""Tests of eda_kombu."""
