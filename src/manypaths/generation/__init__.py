"""From requests to samples: transformers, vLLM, or completions that were made elsewhere."""
