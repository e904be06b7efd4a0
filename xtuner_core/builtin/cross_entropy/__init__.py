"""Loss cross_entropy: the negative log-likelihood of the labels."""
