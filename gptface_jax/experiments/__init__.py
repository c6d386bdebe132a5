"""From an experiment config to a System with its data; one file a system."""
