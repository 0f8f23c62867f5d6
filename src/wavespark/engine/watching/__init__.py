"""Observation of a run: metrics files, dashboards, held-out measures, alarms, example images."""
