"""Real, documented doubles: manual clock, static resolver, scripted peer."""
