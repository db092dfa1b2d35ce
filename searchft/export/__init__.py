"""The winner, taken away: a folder that plain PyTorch loads, and the scores that it really has there."""
