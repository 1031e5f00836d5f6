"""The charts of a run, as Vega-Lite descriptions: one description serves the page and the figures for papers."""
