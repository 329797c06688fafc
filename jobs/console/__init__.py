"""What verbs share: options, log, live line, output, and how a long job's process ends."""
