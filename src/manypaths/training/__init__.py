"""Joins objectives and engine to Hugging Face models and TRL's trainers."""
