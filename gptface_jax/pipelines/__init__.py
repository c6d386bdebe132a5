"""Trained networks at work on arrays and pictures."""
