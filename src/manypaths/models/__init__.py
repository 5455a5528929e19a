"""How a Hugging Face model is loaded, and how it hands us its hidden states."""
