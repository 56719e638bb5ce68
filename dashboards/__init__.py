"""Grafana dashboards and Prometheus alert rules, by code. ``make dashboards`` writes them into generated/."""
