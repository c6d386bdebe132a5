"""The library in a browser: `gptface serve`."""
