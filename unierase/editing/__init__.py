"""UniErase: the unlearning token and the closed-form unlearning edit."""
