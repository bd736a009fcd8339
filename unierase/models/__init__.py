"""Language models: loading, prompt formats, structure, finetuning."""
