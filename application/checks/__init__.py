"""What tells users of a mistake in their code before a job runs."""
