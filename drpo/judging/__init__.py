"""What a judge is asked, how its replies are read, and how they add up. No command line, no network."""
