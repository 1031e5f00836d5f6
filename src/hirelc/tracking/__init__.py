"""Trackers: observers that hand a run's numbers to other people's tools."""
