"""Observer tensorboard: every figure of a step as a curve."""
