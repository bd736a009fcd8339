"""What a model can do besides: tasks of lm-eval on the model in memory."""
