"""From a trained run to findings: prediction, map at the image's own size, threshold, components, files."""
