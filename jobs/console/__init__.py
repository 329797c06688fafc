"""What verbs share of the terminal: options, log, live line, output, the process of a long job."""
