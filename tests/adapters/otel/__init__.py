"""Tests of eda_otel."""
