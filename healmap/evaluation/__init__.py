"""A run against labelled images: figures with intervals, beside what trivial baselines reach on the same images."""
