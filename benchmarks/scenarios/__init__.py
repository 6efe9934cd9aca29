"""The scenarios: one module a question. Each adds its figures to the results of a run."""
