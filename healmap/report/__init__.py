"""Pages made from evaluations: one self-contained HTML file each, which opens without a network and runs no script."""
