"""What labels are called, and the score from which they count."""
