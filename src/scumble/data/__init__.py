"""From files to tensors: subjects, prompts, pairs, video."""
