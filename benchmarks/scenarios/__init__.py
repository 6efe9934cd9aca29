"""What is measured: one module a question, each adding its figures to the results of a run."""
