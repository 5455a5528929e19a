"""More right answers to the same prompts: a model's own, verified ones beside the demonstrations (RFT, arXiv:2308.01825)."""
