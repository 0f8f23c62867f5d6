"""A pre-training run: preflight, build, resume, train, save; and the estimate of what it will
take."""
