"""`python -m searchft`: the same as the `searchft` command, for a checkout that is not installed."""

from __future__ import annotations

from searchft.cli import main

if __name__ == "__main__":
    main()
