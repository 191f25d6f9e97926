"""What happens between "the run may begin" and "the run has ended"."""
