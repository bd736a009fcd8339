"""Methods that leave the weights alone and guard the prompt instead."""
