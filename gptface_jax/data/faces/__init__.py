"""The parts of the drawn faces; the public names are in `data.synthetic`."""
