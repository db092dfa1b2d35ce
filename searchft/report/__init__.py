"""What people see of a study: the live view while it runs, the leaderboard and the report when they ask for it."""
