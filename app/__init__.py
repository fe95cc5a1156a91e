"""Shows recorded runs and launches new ones. Imports neither torch nor the engine's training code."""
