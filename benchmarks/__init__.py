"""Speed, as ratios of medians in one interleaved run."""
