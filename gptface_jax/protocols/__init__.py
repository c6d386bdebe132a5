"""Evaluation protocols: pipelines and metrics joined, each with a table."""
