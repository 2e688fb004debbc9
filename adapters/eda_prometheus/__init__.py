"""The numbers of services for Prometheus."""
# ruff: noqa: E402 - the check comes before the imports that would fail

from eda_core.drivers.library import require

require("eda_prometheus", "prometheus", {"prometheus_client": ""})

from eda_prometheus.collector import ServiceCollector, exposition

__all__ = ["ServiceCollector", "exposition"]
