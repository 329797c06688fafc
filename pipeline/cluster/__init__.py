"""Ray as a place to work: sessions, nodes, the plan of a pool, submission of jobs."""
