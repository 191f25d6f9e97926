"""What is typed and what is seen: commands, messages, the terminal."""
